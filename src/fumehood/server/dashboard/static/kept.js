// Puts the HTML that a kept execution displayed into its frames.

import { framed } from "./guest.js";

for (const place of document.querySelectorAll(".guest[data-html]")) place.replaceWith(framed(place.dataset.html));
