// Filters the ledger's claims by verdict, source and loss. The choice stands in the address
// (ledger.html?verdict=false&loss=dice), so that a filtered view can be shared.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const form = document.getElementById("ledger-filter");
  if (!form) return;
  const claims = [...document.querySelectorAll(".claim")];
  const selects = [...form.querySelectorAll("select")];
  const count = document.getElementById("ledger-count");

  const className = (kind, value) => `${kind}-${value.replaceAll("_", "-")}`;

  function apply() {
    let shown = 0;
    for (const claim of claims) {
      const keep = selects.every(
        (select) =>
          !select.value || claim.classList.contains(className(select.dataset.class, select.value)),
      );
      claim.hidden = !keep;
      if (keep) shown += 1;
    }
    count.textContent = `${shown} of ${claims.length} shown`;
  }

  function remember() {
    const query = new URLSearchParams();
    for (const select of selects) if (select.value) query.set(select.dataset.class, select.value);
    const text = query.toString();
    history.replaceState(null, "", location.pathname + (text ? `?${text}` : "") + location.hash);
  }

  const asked = new URLSearchParams(location.search);
  for (const select of selects) {
    const value = asked.get(select.dataset.class);
    if ([...select.options].some((option) => option.value === value)) select.value = value;
    select.addEventListener("change", () => {
      apply();
      remember();
    });
  }
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
});
