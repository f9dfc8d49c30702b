// execCommand, because navigator.clipboard is refused to a page that was opened from a folder.
for (const table of document.querySelectorAll("table")) {
  const button = document.createElement("button");
  button.textContent = "Copy table";
  button.onclick = () => {
    getSelection().selectAllChildren(table);
    document.execCommand("copy");
  };
  table.parentNode.before(button);
}
