//! Curves as SVG pictures and the page that shows them.
//!
//! A picture is a string, a function of its arguments alone: no fonts are looked up, no files are read, and the same
//! curves give the same bytes. The colours are those of Okabe and Ito ("Color universal design", 2008), which people
//! with any of the common colour deficiencies can tell apart; a marker of another shape on every curve makes a print
//! in black and white readable.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use thiserror::Error;

mod html;
#[cfg(test)]
mod tests;
mod ticks;

pub(super) use html::html;
use ticks::Axis;

/// Width and height of a picture in pixels.
const SIZE: (u32, u32) = (720, 420);
/// The most points of a curve that are drawn.
const MAX_POINTS: usize = 400;
/// About how many markers a curve has.
const MARKERS: usize = 8;
/// Numbers of a larger magnitude are not drawn: the width of an axis of them could overflow.
const LARGEST: f64 = 1e300;
/// The most characters of a name in the legend, of the title and of what stands beside the axes.
const LABEL_CHARACTERS: usize = 30;
const TITLE_CHARACTERS: usize = 70;
const X_CHARACTERS: usize = 50;
const Y_CHARACTERS: usize = 40;
/// Sizes of text in pixels.
const TITLE_TEXT: f64 = 16.0;
const TEXT: f64 = 12.0;
/// The mean width of a character over the size of its font, for wide sans-serif fonts.
const CHARACTER: f64 = 0.6;
/// Height of a line of the legend.
const LINE: i32 = 20;

const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(224, 224, 224);
/// Okabe and Ito's colours, the yellow left out, for it is too light for a line on white.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];
/// One fewer than the colours, so that the pairs repeat after 42 curves only.
const SHAPES: [Shape; 6] = [
    Shape::Circle,
    Shape::Square,
    Shape::Triangle,
    Shape::Cross,
    Shape::Diamond,
    Shape::Ring,
];

/// A named sequence of points.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Curve {
    /// What the legend says, cut after 30 characters.
    pub(super) label: String,
    /// The points `(x, y)` in the order in which they are joined.
    pub(super) points: Vec<(f64, f64)>,
}

/// What stands around the curves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Axes {
    /// The heading above the picture, cut after 70 characters; none if it is empty.
    pub(super) title: String,
    /// What `x` is, with its unit, cut after 50 characters.
    pub(super) x_label: String,
    /// What `y` is, with its unit, cut after 40 characters.
    pub(super) y_label: String,
    /// Whether equal distances are equal quotients of `y`.
    pub(super) log_y: bool,
}

/// The picture could not be drawn.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("cannot draw the picture: {message}")]
pub struct PlotError {
    /// What the drawing library says.
    pub message: String,
}

/// Returns `curves` as an SVG picture of 720 x 420 pixels, the legend on the right.
///
/// Points that cannot be drawn are left out, and the line goes on to the next one: coordinates that are not finite
/// or above `1e300` in magnitude, and with `log_y` those with `y <= 0`. A curve without any point left keeps its
/// place in the legend. Of more than 400 points of a curve every k-th and the last are drawn, with the smallest k
/// that leaves at most 400. Without any point the axes alone are drawn, from 0 to 1 (from 0.1 to 1 with `log_y`).
///
/// # Errors
///
/// [`PlotError`] if the drawing library refuses, which no input is known to make it do.
pub(super) fn curves(curves: &[Curve], axes: &Axes) -> Result<String, PlotError> {
    let mut svg = String::new();
    draw(&mut svg, curves, axes).map_err(|error| PlotError {
        message: error.to_string(),
    })?;
    Ok(svg)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn draw(svg: &mut String, curves: &[Curve], axes: &Axes) -> Drawn {
    let points: Vec<_> = curves
        .iter()
        .map(|curve| drawable(&curve.points, axes.log_y))
        .collect();
    let all = || points.iter().flatten();
    let x = Axis::linear(all().map(|(x, _)| *x));
    let y = match axes.log_y {
        true => Axis::logarithmic(all().map(|(_, y)| *y)),
        false => Axis::linear(all().map(|(_, y)| *y)),
    };

    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let below = if axes.title.trim().is_empty() {
        root.clone()
    } else {
        let title = cut(&axes.title, TITLE_CHARACTERS);
        root.titled(&title, font(TITLE_TEXT).color(&INK))?
    };
    let legend = Legend::new(curves, &points);
    let (left, right) = below.split_horizontally(SIZE.0 as i32 - legend.width);
    let mut builder = ChartBuilder::on(&left);
    builder
        .margin(10)
        .margin_right(if legend.width > 0 { 4 } else { 20 })
        .x_label_area_size(44)
        .y_label_area_size(34 + (y.widest() as f64 * TEXT * CHARACTER) as i32);
    let mut chart = builder.build_cartesian_2d(x.clone(), y.clone())?;
    chart
        .configure_mesh()
        .axis_style(INK)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .label_style(font(TEXT).color(&INK))
        .axis_desc_style(font(TEXT + 1.0).color(&INK))
        .x_desc(cut(&axes.x_label, X_CHARACTERS))
        .y_desc(cut(&axes.y_label, Y_CHARACTERS))
        .draw()?;

    let inside = chart.as_coord_spec();
    for (number, points) in points.iter().enumerate() {
        let look = Look::of(number);
        let mut pixels: Vec<_> = points
            .iter()
            .map(|(px, py)| inside.translate(&(x.place(*px), y.place(*py))))
            .collect();
        // Points that fall on the same pixel say nothing new.
        pixels.dedup();
        if pixels.len() > 1 {
            root.draw(&PathElement::new(
                pixels.clone(),
                look.colour.stroke_width(2),
            ))?;
        }
        for place in marked(pixels.len(), number) {
            look.mark(&root, pixels[place])?;
        }
    }
    legend.draw(&right)?;
    root.present()
}

/// Returns the points that can be drawn, at most [`MAX_POINTS`].
fn drawable(points: &[(f64, f64)], log_y: bool) -> Vec<(f64, f64)> {
    let good = |value: f64| value.abs() <= LARGEST;
    let good: Vec<_> = points
        .iter()
        .copied()
        .filter(|(x, y)| good(*x) && good(*y) && (!log_y || *y > 0.0))
        .collect();
    let Some(last) = good.len().checked_sub(1) else {
        return good;
    };
    if good.len() <= MAX_POINTS {
        return good;
    }
    let step = last.div_ceil(MAX_POINTS - 1);
    let mut kept: Vec<_> = good.iter().copied().step_by(step).collect();
    if last % step != 0 {
        kept.push(good[last]);
    }
    kept
}

/// Which of `count` points have a marker: all of a few, else about [`MARKERS`], elsewhere on the next curve so that
/// curves that run together show each other's markers.
fn marked(count: usize, number: usize) -> impl Iterator<Item = usize> {
    let step = count.div_ceil(MARKERS).max(1);
    let first = (number % 4) * step / 4;
    (first..count).step_by(step)
}

/// The form of a marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Circle,
    Square,
    Triangle,
    Cross,
    Diamond,
    Ring,
}

/// What tells a curve from the others.
#[derive(Debug, Clone, Copy)]
struct Look {
    colour: RGBColor,
    shape: Shape,
}

impl Look {
    fn of(number: usize) -> Self {
        Self {
            colour: COLOURS[number % COLOURS.len()],
            shape: SHAPES[number % SHAPES.len()],
        }
    }

    fn mark(self, area: &Area<'_>, (x, y): (i32, i32)) -> Drawn {
        let (filled, line) = (self.colour.filled(), self.colour.stroke_width(2));
        match self.shape {
            Shape::Circle => area.draw(&Circle::new((x, y), 4, filled)),
            Shape::Square => area.draw(&Rectangle::new([(x - 4, y - 4), (x + 4, y + 4)], filled)),
            Shape::Triangle => area.draw(&Polygon::new(
                vec![(x, y - 5), (x + 5, y + 4), (x - 5, y + 4)],
                filled,
            )),
            Shape::Cross => {
                area.draw(&PathElement::new(
                    vec![(x - 4, y - 4), (x + 4, y + 4)],
                    line,
                ))?;
                area.draw(&PathElement::new(
                    vec![(x - 4, y + 4), (x + 4, y - 4)],
                    line,
                ))
            }
            Shape::Diamond => {
                let corners = vec![(x, y - 6), (x + 6, y), (x, y + 6), (x - 6, y)];
                area.draw(&Polygon::new(corners, filled))
            }
            Shape::Ring => {
                area.draw(&Circle::new((x, y), 4, WHITE.filled()))?;
                area.draw(&Circle::new((x, y), 4, line))
            }
        }
    }
}

/// The names of the curves beside their looks.
struct Legend {
    labels: Vec<String>,
    /// Curves for whose names there is no room.
    hidden: usize,
    /// Width in pixels.
    width: i32,
}

impl Legend {
    /// Length of the line before a name.
    const SAMPLE: i32 = 28;
    /// Room for the title.
    const TITLE: i32 = 30;
    /// Where the first name stands, below the title.
    const TOP: i32 = 20;

    fn new(curves: &[Curve], points: &[Vec<(f64, f64)>]) -> Self {
        let room = ((SIZE.1 as i32 - Self::TITLE - Self::TOP) / LINE) as usize;
        // The line that counts the hidden ones takes the place of a name.
        let shown = if curves.len() > room {
            room - 1
        } else {
            curves.len()
        };
        let mut labels: Vec<String> = curves
            .iter()
            .zip(points)
            .take(shown)
            .map(|(curve, points)| match points.is_empty() {
                true => format!("{} (none)", cut(&curve.label, LABEL_CHARACTERS - 7)),
                false => cut(&curve.label, LABEL_CHARACTERS),
            })
            .collect();
        let hidden = curves.len() - shown;
        if hidden > 0 {
            labels.push(format!("and {hidden} more"));
        }
        let longest = labels.iter().map(|label| label.chars().count()).max();
        let text = |longest: usize| (longest as f64 * TEXT * CHARACTER) as i32;
        let width = longest.map_or(0, |longest| Self::SAMPLE + 14 + text(longest));
        Self {
            labels,
            hidden,
            width,
        }
    }

    fn draw(&self, area: &Area<'_>) -> Drawn {
        let curves = self.labels.len() - usize::from(self.hidden > 0);
        for (number, label) in self.labels.iter().enumerate() {
            let y = Self::TOP + LINE * number as i32;
            if number < curves {
                let look = Look::of(number);
                let line = vec![(4, y), (4 + Self::SAMPLE, y)];
                area.draw(&PathElement::new(line, look.colour.stroke_width(2)))?;
                look.mark(area, (4 + Self::SAMPLE / 2, y))?;
            }
            let style = font(TEXT)
                .color(&INK)
                .pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(label.clone(), (10 + Self::SAMPLE, y), style))?;
        }
        Ok(())
    }
}

/// A sans-serif font of the given size in pixels.
fn font(pixels: f64) -> FontDesc<'static> {
    // The backend divides by this number.
    FontDesc::new(FontFamily::SansSerif, pixels * 1.24, FontStyle::Normal)
}

/// The text on one line, cut after `characters` characters, and without those that XML does not allow.
fn cut(text: &str, characters: usize) -> String {
    let allowed = |character: char| match character {
        '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
        character if character.is_control() => ' ',
        character => character,
    };
    let mut cut: String = text.trim().chars().map(allowed).collect();
    if cut.chars().count() > characters {
        cut = cut.chars().take(characters - 1).collect();
        cut.push('\u{2026}');
    }
    cut
}
