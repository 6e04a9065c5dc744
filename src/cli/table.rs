//! Rows of cells, one below the other.

/// On which side of a column its cells stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Left,
    Right,
}

/// Rows with their cells below each other, two spaces between them, each line with its end. A row
/// of fewer cells ends there.
pub(super) fn aligned(rows: &[Vec<String>], sides: &[Side]) -> String {
    lines(rows, sides).into_iter().map(|line| line + "\n").collect()
}

/// The same as lines without ends.
pub(super) fn lines(rows: &[Vec<String>], sides: &[Side]) -> Vec<String> {
    let widths = widths(rows);
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match sides
            .get(column)
        {
            Some(Side::Right) => format!("{cell:>width$}"),
            _ => format!("{cell:width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Rows that fit into `width`: of columns that have no place the one that `least` names first goes
/// first, and what is in column `flexible` is cut off where that is enough.
pub(super) fn fitting(
    mut rows: Vec<Vec<String>>,
    sides: &[Side],
    width: usize,
    flexible: usize,
    least: &[usize],
) -> Vec<String> {
    /// A cell that is shorter says nothing.
    const SHORTEST: usize = 24;
    let mut sides = sides.to_vec();
    let mut flexible = flexible;
    let mut least: Vec<usize> = least.to_vec();
    while !least.is_empty() {
        let widths = widths(&rows);
        let of_flexible = widths.get(flexible).copied().unwrap_or_default();
        let can_give = of_flexible.saturating_sub(SHORTEST);
        if whole(&widths) <= width + can_give {
            break;
        }
        let gone = least.remove(0);
        for row in &mut rows {
            if gone < row.len() {
                row.remove(gone);
            }
        }
        if gone < sides.len() {
            sides.remove(gone);
        }
        flexible = moved(flexible, gone);
        least = least.into_iter().map(|column| moved(column, gone)).collect();
    }
    let widths = widths(&rows);
    let over = whole(&widths).saturating_sub(width);
    let most = widths.get(flexible).map(|own| own.saturating_sub(over).max(1));
    for row in &mut rows {
        if let (Some(cell), Some(most)) = (row.get_mut(flexible), most) {
            *cell = super::output::fitted(cell, most);
        }
    }
    let lines = lines(&rows, &sides);
    lines.into_iter().map(|line| super::output::fitted(&line, width)).collect()
}

/// Where a column stands when that one is gone.
fn moved(column: usize, gone: usize) -> usize {
    if column > gone { column - 1 } else { column }
}

fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    (0..columns).map(|column| width(column).unwrap_or_default()).collect()
}

/// How wide a row is.
fn whole(widths: &[usize]) -> usize {
    widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<String>> {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        vec![row(["docker.io/library/alpine:3.20", "3.6MB", "now"]), row(["a", "12MB", "10d"])]
    }

    #[test]
    fn cells_stand_below_each_other() {
        let text = aligned(&rows(), &[Side::Left, Side::Right, Side::Left]);
        assert_eq!(
            text,
            "docker.io/library/alpine:3.20  3.6MB  now\na                               12MB  10d\n"
        );
    }

    #[test]
    fn what_does_not_fit_is_cut_off_and_then_left_out() {
        let sides = [Side::Left, Side::Right, Side::Left];
        let fit = |width| fitting(rows(), &sides, width, 0, &[2, 1]);
        assert_eq!(fit(80), lines(&rows(), &sides));
        assert_eq!(
            fit(37),
            ["docker.io/library/alpine…  3.6MB  now", "a                           12MB  10d"]
        );
        assert_eq!(
            fit(32),
            ["docker.io/library/alpine…  3.6MB", "a                           12MB"]
        );
        assert_eq!(fit(16), ["docker.io/libra…", "a"]);
        for width in 1..80 {
            assert!(fit(width).iter().all(|line| line.chars().count() <= width), "{width}");
        }
    }
}
