// Tables of the page: sorted by a click on a column's title, chosen by words and by the columns that offer it.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const rows = () => [...table.tBodies[0].rows];
  const isMissing = (value) => value === "" || value === "–";

  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const rising = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
    const sorted = rows().sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (isMissing(x) || isMissing(y)) return isMissing(x) - isMissing(y);
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
      return rising ? order : -order;
    });
    table.tBodies[0].append(...sorted);
  }));

  const form = table.closest(".scroll").previousElementSibling;
  if (!form?.matches("form.choose")) continue;
  const selects = [...form.querySelectorAll("select")];
  for (const select of selects) {
    const words = new Set(rows().map((row) => row.cells[select.dataset.column].textContent.trim()));
    for (const word of [...words].sort()) select.add(new Option(word, word));
  }
  const choose = () => {
    const wanted = form.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean);
    const all = rows();
    for (const row of all) {
      const text = row.textContent.toLowerCase();
      row.hidden = !wanted.every((word) => text.includes(word)) ||
        selects.some((select) => select.value && row.cells[select.dataset.column].textContent.trim() !== select.value);
    }
    const shown = all.filter((row) => !row.hidden).length;
    form.querySelector("output").textContent = shown === all.length ? "" : `${shown} of ${all.length} shown`;
  };
  form.addEventListener("input", choose);
  form.addEventListener("submit", (event) => event.preventDefault());
}
