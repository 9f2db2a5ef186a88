// Shows every <time> in the reader's own language and time zone; the server wrote them in UTC.

const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

export function localizeTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    const instant = new Date(element.dateTime);
    if (!Number.isNaN(instant.valueOf())) element.textContent = format.format(instant);
  }
}

export function localTime(iso) {
  return format.format(new Date(iso));
}

localizeTimes(document);
