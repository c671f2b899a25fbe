// Applies the chosen theme before the first paint; without a choice the page follows the system.
const theme = localStorage.getItem("melete.theme");
if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
