for (const form of document.querySelectorAll('form[data-rows]')) {
  const rows = [...document.querySelectorAll('#' + form.dataset.rows + ' tbody tr')].map((row) => [row, row.textContent.toLowerCase()]);
  const count = document.getElementById(form.dataset.rows + '-count');
  const choices = [...form.querySelectorAll('select')];
  const apply = () => {
    const text = form.text.value.trim().toLowerCase();
    let shown = 0;
    for (const [row, all] of rows) {
      row.hidden = !all.includes(text) || choices.some((c) => c.value && row.dataset[c.name] !== c.value);
      if (!row.hidden) shown++;
    }
    count.textContent = shown + ' of ' + rows.length + ' shown';
  };
  form.addEventListener('input', apply);
  form.addEventListener('submit', (e) => e.preventDefault());
  form.hidden = count.hidden = false;
  apply();
}
