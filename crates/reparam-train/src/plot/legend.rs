//! The names of the curves below their picture.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::look::{Look, ring};
use super::{Area, CHARACTER, Drawn, INK, Panel, TEXT, WIDTH, font, plain};

/// Height of a line.
const LINE: i32 = 36;
/// Where the sample of a line begins, and how long it is.
const LEFT: i32 = 24;
const SAMPLE: i32 = 56;
/// Where the names begin.
const TEXT_LEFT: i32 = LEFT + SAMPLE + 16;

/// The names of curves and of what is pointed at, each on as many lines as it needs.
pub(super) struct Legend {
    names: Vec<Vec<String>>,
    n_curves: usize,
}

impl Legend {
    pub(super) fn new(panel: &Panel) -> Self {
        let curves = panel.curves.iter().map(|curve| {
            let has_points = curve.points.iter().any(|(x, y)| (x + y).is_finite());
            let none = if has_points { "" } else { " (none)" };
            wrapped(&format!("{}{none}", plain(&curve.label)))
        });
        let mark = panel.mark.iter().map(|mark| wrapped(&plain(&mark.label)));
        Self {
            names: curves.chain(mark).collect(),
            n_curves: panel.curves.len(),
        }
    }

    /// Returns its height in pixels.
    pub(super) fn height(&self) -> i32 {
        let lines: usize = self.names.iter().map(Vec::len).sum();
        let lines = i32::try_from(lines).unwrap_or(i32::MAX / LINE / 2);
        LINE * lines + LINE / 2
    }

    pub(super) fn draw(&self, area: &Area<'_>) -> Drawn {
        let mut y = LINE / 2;
        for (number, lines) in self.names.iter().enumerate() {
            let middle = (LEFT + SAMPLE / 2, y);
            if number < self.n_curves {
                let look = Look::of(number);
                let line = vec![(LEFT, y), (LEFT + SAMPLE, y)];
                area.draw(&PathElement::new(line, look.colour.stroke_width(4)))?;
                look.mark(area, middle)?;
            } else {
                ring(area, middle)?;
            }
            for line in lines {
                let style = font(TEXT)
                    .color(&INK)
                    .pos(Pos::new(HPos::Left, VPos::Center));
                area.draw(&Text::new(line.clone(), (TEXT_LEFT, y), style))?;
                y += LINE;
            }
        }
        Ok(())
    }
}

/// Breaks a text into lines that fit, at a space where there is one.
fn wrapped(text: &str) -> Vec<String> {
    let room = (f64::from(WIDTH - TEXT_LEFT) / (TEXT * CHARACTER)) as usize;
    let mut lines = Vec::new();
    let mut rest: Vec<char> = text.chars().collect();
    while rest.len() > room {
        let space = rest[..room].iter().rposition(|c| *c == ' ');
        let end = space.map_or(room, |space| space + 1);
        let next = rest.split_off(end);
        lines.push(rest.iter().collect::<String>().trim_end().to_owned());
        rest = next;
    }
    lines.push(rest.into_iter().collect());
    lines
}
