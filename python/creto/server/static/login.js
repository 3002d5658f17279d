"use strict";
// A link may carry the token behind `#`, which browsers never send; it is taken out of the address at once.
(() => {
  const token = decodeURIComponent(location.hash.slice(1));
  if (token.startsWith("creto_")) {
    document.getElementById("token").value = token;
    history.replaceState(null, "", location.pathname + location.search);
  }
})();
