// The table of results: a click on a heading sorts, the menus filter, the button saves the shown rows as CSV.
// The table is whole without this script.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const table = document.querySelector("table.results");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const headings = [...table.tHead.rows[0].cells];
  const text = (row, column) => row.cells[column].textContent.trim();
  const shown = () => [...body.rows].filter((row) => !row.hidden);

  const tools = document.createElement("div");
  tools.className = "results-tools";
  const count = document.createElement("output");
  count.setAttribute("aria-live", "polite");
  const selects = [];

  function apply() {
    for (const row of rows) {
      row.hidden = selects.some(({ select, column }) => select.value && text(row, column) !== select.value);
    }
    count.textContent = `${shown().length} of ${rows.length} rows`;
  }

  headings.forEach((heading, column) => {
    const name = heading.textContent;
    const values = [...new Set(rows.map((row) => text(row, column)))];
    if (values.some((value) => Number.isNaN(Number(value)))) {
      const label = document.createElement("label");
      const select = document.createElement("select");
      select.append(new Option("all", ""), ...values.map((value) => new Option(value, value)));
      select.addEventListener("change", apply);
      label.append(`${name} `, select);
      tools.append(label);
      selects.push({ select, column });
    }
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((each) => each.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const order = new Intl.Collator("en", { numeric: true });
      const number = (row) => Number.parseFloat(text(row, column));
      const compare = (a, b) => {
        const difference = number(a) - number(b);
        return Number.isNaN(difference) ? order.compare(text(a, column), text(b, column)) : difference;
      };
      body.append(...rows.sort((a, b) => (down ? -1 : 1) * compare(a, b)));
    });
    heading.replaceChildren(button);
  });

  const save = document.createElement("button");
  save.type = "button";
  save.textContent = "Save the shown rows as CSV";
  save.addEventListener("click", () => {
    const quoted = (value) => `"${value.replaceAll('"', '""')}"`;
    const lines = [headings, ...shown().map((row) => [...row.cells])];
    const csv = lines.map((cells) => cells.map((cell) => quoted(cell.textContent.trim())).join(",")).join("\r\n");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv], { type: "text/csv" }));
    link.download = "lossatlas-results.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  });
  tools.append(save, count);
  table.before(tools);
  apply();
});
