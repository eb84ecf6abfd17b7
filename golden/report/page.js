for (const form of document.querySelectorAll('form')) {
  const rows = [...document.querySelectorAll('#' + form.dataset.rows + ' tbody tr')];
  const count = form.querySelector('output');
  const apply = () => {
    const text = form.text.value.toLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden = (form.result.value && row.dataset.result !== form.result.value) ||
        (form.severity.value && row.dataset.severity !== form.severity.value) ||
        !row.textContent.toLowerCase().includes(text);
      if (!row.hidden) shown++;
    }
    count.textContent = shown + ' of ' + rows.length;
  };
  form.addEventListener('input', apply);
  form.addEventListener('submit', (e) => e.preventDefault());
  form.hidden = false;
  apply();
}
