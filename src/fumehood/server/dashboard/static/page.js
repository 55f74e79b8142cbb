// What every page does: ask before something is deleted, let editors take Tab, and close the menu by Escape.

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});

for (const editor of document.querySelectorAll("[data-editor]")) editing(editor);

document.addEventListener("keydown", (event) => {
  const menu = document.querySelector("details.narrow[open]");
  if (event.key === "Escape" && menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

function editing(editor) {
  let leaves = false;
  editor.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      editor.form.requestSubmit();
    } else if (event.key === "Tab" && !event.shiftKey && !leaves && !event.ctrlKey && !event.altKey) {
      event.preventDefault();
      // The only way that keeps what Ctrl-Z undoes.
      document.execCommand("insertText", false, "    ");
    }
    // Who has no mouse gets out again: Escape, then Tab.
    if (event.key !== "Shift") leaves = event.key === "Escape";
  });
}
