"use strict";
// Live updates: the stream says that something changed, the server renders what is shown.
(() => {
  const live = document.getElementById("live");
  const request = document.querySelector("[data-request]");
  let asked = false;

  async function renew() {
    if (asked) return;
    asked = true;
    await new Promise((done) => setTimeout(done, 150)); // many changes, one question
    asked = false;
    const answer = await fetch(live.dataset.part, { credentials: "same-origin", redirect: "error" }).catch(() => null);
    if (!answer || !answer.ok) return;
    live.innerHTML = await answer.text();
    const waiting = live.querySelectorAll(".card.pending").length;
    document.title = (waiting ? `(${waiting}) ` : "") + "Inbox · creto";
  }

  const events = new EventSource(`${document.body.dataset.at}/events`);
  events.addEventListener("change", (event) => {
    if (live) renew();
    // A half-written reason is not thrown away: the page only says that it is out of date.
    if (request && (event.data === request.dataset.request || event.data === "*")) {
      const typed = document.getElementById("reason");
      if (typed && typed.value) request.querySelector(".fresh").hidden = false;
      else location.reload();
    }
  });
  if (live) {
    events.addEventListener("open", renew); // what was missed while the connection was down
    setInterval(renew, 30000); // the times shown
  }
})();
