// The table of results: DataTables sorts, searches, turns pages and saves CSV; a menu a column of names chooses rows.
// The table is whole without this script.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const table = document.querySelector("table.results");
  if (!table) return;
  // "–" stands for no number, and sorts below all.
  const asNumber = (value, use) => (use === "sort" || use === "type" ? Number(value === "–" ? -1 : value) : value);
  const cells = (column) => [...table.tBodies[0].rows].map((row) => row.cells[column].textContent.trim());
  const isNumber = (value) => value === "–" || !Number.isNaN(Number(value));
  const headings = [...table.tHead.rows[0].cells];
  const numeric = headings.map((_, column) => column).filter((column) => cells(column).every(isNumber));
  const saved = { filename: "lossatlas-results", title: null, footer: false };
  const save = { extend: "csvHtml5", text: "Save the chosen rows as CSV", ...saved };
  const results = new DataTable(table, {
    layout: {
      topStart: { pageLength: { menu: [25, 100, { label: "all", value: -1 }] } },
      topEnd: ["search", { buttons: [save] }],
      bottomStart: "info",
      bottomEnd: "paging",
    },
    language: {
      info: "_START_ to _END_ of _TOTAL_ rows",
      infoEmpty: "no row",
      infoFiltered: "(chosen from _MAX_)",
      lengthMenu: "_MENU_ rows",
      zeroRecords: "No row has all of these.",
    },
    columnDefs: [{ targets: numeric, render: asNumber }],
    order: [],
    pageLength: 25,
  });

  const tools = document.createElement("div");
  tools.className = "results-tools";
  results.columns().every(function () {
    const values = this.data().unique().toArray();
    if (values.every(isNumber)) return;
    const select = document.createElement("select");
    select.append(new Option("all", ""), ...values.map((value) => new Option(value, value)));
    select.addEventListener("change", () => {
      const chosen = select.value;
      this.search(chosen ? (value) => value === chosen : "").draw();
    });
    const label = document.createElement("label");
    label.append(`${this.header().textContent.trim()} `, select);
    tools.append(label);
  });
  table.closest(".results-table").before(tools);
});
