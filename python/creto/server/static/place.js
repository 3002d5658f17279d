"use strict";
// Where this session's pages live: links from elsewhere find it by this, which other ports cannot read.
localStorage.setItem("creto-inbox", document.body.dataset.at);
