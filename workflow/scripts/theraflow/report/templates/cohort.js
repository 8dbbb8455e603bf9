for (const button of document.querySelectorAll("button.copy")) {
  const source = document.getElementById(button.dataset.copies);
  const told = button.parentElement.querySelector("[role=status]");
  button.addEventListener("click", async () => {
    const paragraphs = [...source.querySelectorAll("p")].map((part) => part.textContent);
    try {
      await navigator.clipboard.writeText(paragraphs.join("\n\n"));
      told.textContent = "Copied.";
    } catch {  // a browser that gives no page of a file its clipboard
      getSelection().selectAllChildren(source);
      told.textContent = "Selected: press Ctrl+C.";
    }
  });
}
