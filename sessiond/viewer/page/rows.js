// A list of which only the rows in sight are made.

export function element(name, { text, className, ...attributes } = {}, ...children) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((each) => each !== null && each !== undefined));
  return made;
}

export class Rows {
  // `draw(row, index)` makes the element of a row; `choose(index)` is called for a click.
  constructor(list, height, draw, choose) {
    Object.assign(this, { list, height, draw, choose, rows: [], chosen: -1, made: new Map() });
    this.room = element("div", { className: "room", "aria-hidden": "true" });
    list.append(this.room);
    list.addEventListener("scroll", () => this.show(), { passive: true });
    new ResizeObserver(() => this.show()).observe(list);
    list.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) this.choose(Number(row.dataset.index), event);
    });
  }

  set(rows) {
    this.rows = rows;
    this.room.style.height = `${rows.length * this.height}px`;
    this.refresh();
  }

  refresh() {
    for (const each of this.made.values()) each.remove();
    this.made.clear();
    this.show();
  }

  show() {
    const first = Math.max(0, Math.floor(this.list.scrollTop / this.height) - 8);
    const last = Math.min(this.rows.length, Math.ceil((this.list.scrollTop + this.list.clientHeight) / this.height) + 8);
    for (const [index, each] of this.made) {
      if (index >= first && index < last) continue;
      each.remove();
      this.made.delete(index);
    }
    for (let index = first; index < last; index++) {
      if (this.made.has(index)) continue;
      const row = this.draw(this.rows[index], index);
      row.id = `${this.list.id}-${index}`;
      row.dataset.index = index;
      row.style.top = `${index * this.height}px`;
      row.style.height = `${this.height}px`;
      row.classList.add("row");
      this.made.set(index, row);
      this.list.append(row);
    }
    this.mark();
  }

  mark() {
    for (const [index, each] of this.made) {
      each.classList.toggle("chosen", index === this.chosen);
      each.setAttribute("aria-selected", String(index === this.chosen));
    }
    if (this.made.has(this.chosen)) this.list.setAttribute("aria-activedescendant", `${this.list.id}-${this.chosen}`);
    else this.list.removeAttribute("aria-activedescendant");
  }

  // Choose a row and bring it into sight.
  select(index, middle = false) {
    this.chosen = index;
    if (index >= 0) {
      const top = index * this.height;
      const { scrollTop, clientHeight } = this.list;
      if (top < scrollTop || top + this.height > scrollTop + clientHeight) {
        this.list.scrollTop = middle ? top - clientHeight / 2 : top < scrollTop ? top : top + this.height - clientHeight;
      }
    }
    this.show();
  }
}
