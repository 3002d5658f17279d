"use strict";
(() => {
  // A link may carry the token behind `#`, which browsers never send; it is taken out of the address at once.
  function taken() {
    const token = decodeURIComponent(location.hash.slice(1));
    if (!token.startsWith("creto_")) return false;
    document.getElementById("token").value = token;
    history.replaceState(null, "", location.pathname + location.search);
    return true;
  }

  addEventListener("hashchange", taken);
  if (taken()) return;
  const { known, next } = document.querySelector("[data-known]").dataset;
  if (known === "ended") localStorage.removeItem("creto-inbox");
  const at = localStorage.getItem("creto-inbox");
  // Signed in already, under a path of its own.
  if (known === "look" && at && /^\/s\/[\w-]{22}$/.test(at)) location.replace(at + next);
})();
