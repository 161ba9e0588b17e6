//! `stratafs volume ls`. Source: docker/cli `cli/command/formatter/volume.go`.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::args::ListArgs;
use super::filter::Filter;
use super::template::Template;
use super::{all, print};
use crate::cli::exit::Outcome;
use crate::volume::{Store, Volume};

const TABLE: &str = "{{.Driver}}\t{{.Name}}";
const RAW: &str = "name: {{.Name}}\ndriver: {{.Driver}}\n";

/// Lists the volumes that the filters take.
pub fn list(store: &Store, args: &ListArgs) -> Outcome {
    let filter = Filter::new(&args.filter, &["dangling", "driver", "label", "name"])?;
    // Before anything is listed: a format that makes no sense is refused in an empty store too.
    let format = args.format.as_deref().filter(|format| !format.is_empty()).unwrap_or("table");
    let (table, template) = match format.strip_prefix("table") {
        Some(rest) if rest.trim().is_empty() && args.quiet => (false, "{{.Name}}"),
        Some(rest) if rest.trim().is_empty() => (true, TABLE),
        Some(rest) => (true, rest.trim()),
        None if format == "json" => (false, "{{json .}}"),
        None if format == "raw" && args.quiet => (false, "name: {{.Name}}"),
        None if format == "raw" => (false, RAW),
        None => (false, format),
    };
    let template = Template::new(template, true)?;
    template.fill(&fields("", "", &BTreeMap::new(), ""))?;
    let (volumes, outcome) = all(store)?;
    let mut lines = Vec::new();
    if table {
        lines.push(template.headings(heading));
    }
    for volume in volumes.iter().filter(|volume| filter.takes(volume)) {
        lines.push(template.fill(&row(volume))?);
    }
    let text = if table { columns(&lines) } else { lines.iter().map(|line| format!("{line}\n")).collect() };
    print(&text);
    outcome
}

fn row(volume: &Volume) -> Value {
    let meta = &volume.meta;
    fields(&meta.name, &meta.driver, &meta.labels, &volume.mountpoint.to_string_lossy())
}

/// What a template may name. Docker knows links and sizes only in `docker system df`.
fn fields(name: &str, driver: &str, labels: &BTreeMap<String, String>, mountpoint: &str) -> Value {
    let list: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    json!({
        "Availability": "N/A", "Driver": driver, "Group": "N/A", "Label": labels, "Labels": list.join(","),
        "Links": "N/A", "Mountpoint": mountpoint, "Name": name, "Scope": "local", "Size": "N/A", "Status": "N/A",
    })
}

fn heading(field: &str) -> String {
    if field == "Name" { "VOLUME NAME".to_owned() } else { field.to_uppercase() }
}

/// Cells between tabs, in columns at least ten wide with three blanks between. Source: Go `text/tabwriter`.
fn columns(lines: &[String]) -> String {
    let rows: Vec<Vec<&str>> = lines.iter().map(|line| line.split('\t').collect()).collect();
    let width = |column: usize| {
        let cells =
            rows.iter().filter(|row| row.len() > column + 1).map(|row| row[column].chars().count() + 3);
        cells.max().unwrap_or(0).max(10)
    };
    let mut out = String::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            match column + 1 == row.len() {
                true => out += cell,
                false => out += &format!("{cell:<width$}", width = width(column)),
            }
        }
        out.push('\n');
    }
    out
}

/// The order of names in which `v2` comes before `v10`. Source: docker/cli, `sortorder.NaturalLess`.
pub fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    while let (Some(first), Some(second)) = (a.first(), b.first()) {
        let (m, n) = (digits(a), digits(b));
        if m == 0 || n == 0 {
            if first != second {
                return first.cmp(second);
            }
            (a, b) = (&a[1..], &b[1..]);
            continue;
        }
        let significant = |text: &[u8]| text.iter().position(|byte| *byte != b'0').unwrap_or(text.len());
        let (x, y) = (&a[significant(&a[..m])..m], &b[significant(&b[..n])..n]);
        let order = x.len().cmp(&y.len()).then(x.cmp(y)).then(m.cmp(&n));
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (&a[m..], &b[n..]);
    }
    a.len().cmp(&b.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let mut names = ["v10", "v2", "a", "v2a", "v02", "v1-10", "v1-9", "10", "9"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["9", "10", "a", "v1-9", "v1-10", "v2", "v2a", "v02", "v10"]);
    }

    #[test]
    fn columns_are_dockers() {
        let lines = ["DRIVER\tVOLUME NAME", "local\tv2"].map(str::to_owned);
        assert_eq!(columns(&lines), "DRIVER    VOLUME NAME\nlocal     v2\n");
        let lines = ["VOLUME NAME\tLABELS", "v2\t", "v10\ta=,b=2"].map(str::to_owned);
        assert_eq!(columns(&lines), "VOLUME NAME   LABELS\nv2            \nv10           a=,b=2\n");
    }
}
