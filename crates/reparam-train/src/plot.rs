//! Curves as SVG pictures.
//!
//! A picture is a string, a function of its arguments alone: no fonts are looked up, no files are read, and the same
//! curves give the same bytes. The colours are those of Okabe and Ito ("Color universal design", 2008), which people
//! with any of the common colour deficiencies can tell apart; a marker of another shape on every curve makes a print
//! in black and white readable. A style sheet in the picture turns it dark where the reader's system is.

use plotters::coord::Shift;
use plotters::prelude::*;
use thiserror::Error;

mod legend;
mod look;
#[cfg(test)]
mod tests;
mod ticks;

use legend::Legend;
use look::{Look, marked};
use ticks::Axis;

/// Width of a picture in pixels.
///
/// It is twice what a telephone has, so that lines have half pixels there, and the text half of [`TEXT`].
const WIDTH: i32 = 880;
/// Height of the coordinate system with what stands at its axes.
const CHART: i32 = 520;
/// Room for a title.
const TITLE: i32 = 50;
/// Sizes of text in pixels.
const TITLE_TEXT: f64 = 29.0;
const TEXT: f64 = 25.0;
/// The mean width of a character over the size of its font, for wide sans-serif fonts.
const CHARACTER: f64 = 0.6;
/// The most points of a curve that are drawn, and of a smoothed one.
const MAX_POINTS: usize = 300;
const MAX_SMOOTHED: usize = 150;
/// A smoothed curve is the mean over this part of its points, if it has as many.
const WINDOW: usize = 20;
/// Numbers of a larger magnitude are not drawn: the width of an axis of them could overflow.
const LARGEST: f64 = 1e300;
/// Values that span a larger quotient are drawn on a logarithmic axis.
const LOGARITHMIC: f64 = 10.0;
/// The most characters of the title and of what stands beside the axes.
const TITLE_CHARACTERS: usize = 48;
const X_CHARACTERS: usize = 40;
const Y_CHARACTERS: usize = 32;

const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(224, 224, 224);

/// What is drawn in which colour where the system is dark; the colours are those of this file and of [`look`].
const DARK: &str = "<style>@media (prefers-color-scheme:dark){\
svg [fill=\"#FFFFFF\"]{fill:#16181c}\
svg [fill=\"#282828\"],svg [fill=\"#000000\"]{fill:#e8e8e8}\
svg [stroke=\"#282828\"],svg [stroke=\"#000000\"]{stroke:#e8e8e8}\
svg [stroke=\"#E0E0E0\"]{stroke:#3c4048}\
svg [fill=\"#0072B2\"]{fill:#3d9bdb}svg [stroke=\"#0072B2\"]{stroke:#3d9bdb}\
}</style>\n";

/// A named sequence of points.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Curve {
    /// What the legend says.
    pub(crate) label: String,
    /// The points `(x, y)` in the order in which they are joined.
    pub(crate) points: Vec<(f64, f64)>,
    /// How they are drawn.
    pub(crate) kind: Kind,
}

/// How a curve is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Faintly, with its running mean over it.
    Noisy,
    /// As it is, with a marker on the points if they are few.
    Exact,
}

/// A point that a ring is drawn around.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mark {
    /// Where it is.
    pub(crate) at: (f64, f64),
    /// What the legend says of it.
    pub(crate) label: String,
}

/// A coordinate system with curves in it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Panel {
    /// The heading above it, cut after 48 characters; none if it is empty.
    pub(crate) title: String,
    /// What `x` is, with its unit, cut after 40 characters.
    pub(crate) x_label: String,
    /// What `y` is, with its unit, cut after 32 characters.
    pub(crate) y_label: String,
    /// What is drawn.
    pub(crate) curves: Vec<Curve>,
    /// What is pointed at.
    pub(crate) mark: Option<Mark>,
    /// How far the points of the first curve spread.
    pub(crate) bars: Vec<Bar>,
}

/// A line up and down at a point, in the colour of the first curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bar {
    /// Its `x`.
    pub(crate) at: f64,
    /// Where it ends below.
    pub(crate) low: f64,
    /// Where it ends above.
    pub(crate) high: f64,
}

/// The picture could not be drawn.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("cannot draw the picture: {message}")]
pub struct PlotError {
    /// What the drawing library says.
    pub message: String,
}

/// Returns panels below each other as an SVG picture, each with its legend below.
///
/// Points that cannot be drawn are left out, and the line goes on to the next one: coordinates that are not finite
/// or above `1e300` in magnitude, and on a logarithmic axis those with `y <= 0`. A curve without any point left keeps its
/// place in the legend. Of more than 300 points of a curve every k-th and the last are drawn. Without any point the axes
/// alone are drawn, from 0 to 1. `y` is logarithmic, and says so, where positive values span a factor of more than ten.
///
/// # Errors
///
/// [`PlotError`] if the drawing library refuses, which no input is known to make it do.
pub(crate) fn picture(panels: &[Panel]) -> Result<String, PlotError> {
    let mut svg = String::new();
    draw(&mut svg, panels).map_err(|error| PlotError {
        message: error.to_string(),
    })?;
    if let Some(end) = svg.find('>') {
        svg.insert_str(end + 1, &format!("\n{}", DARK.trim_end()));
    }
    Ok(svg)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn draw(svg: &mut String, panels: &[Panel]) -> Drawn {
    let legends: Vec<Legend> = panels.iter().map(Legend::new).collect();
    let title = |panel: &Panel| match panel.title.trim().is_empty() {
        true => 0,
        false => TITLE,
    };
    let height = |(panel, legend): (&Panel, &Legend)| title(panel) + CHART + legend.height();
    let total: i32 = panels.iter().zip(&legends).map(height).sum();
    let size = (WIDTH.unsigned_abs(), total.unsigned_abs());
    let root = SVGBackend::with_string(svg, size).into_drawing_area();
    root.fill(&WHITE)?;
    let mut rest = root.clone();
    for (panel, legend) in panels.iter().zip(&legends) {
        if title(panel) > 0 {
            let (above, below) = rest.split_vertically(TITLE);
            above.titled(
                &cut(&panel.title, TITLE_CHARACTERS),
                font(TITLE_TEXT).color(&INK),
            )?;
            rest = below;
        }
        let (chart, below) = rest.split_vertically(CHART);
        draw_chart(&root, &chart, panel)?;
        let (names, below) = below.split_vertically(legend.height());
        legend.draw(&names)?;
        rest = below;
    }
    root.present()
}

/// Draws axes and curves; the places of the axes are pixels of the whole picture, `root`.
fn draw_chart(root: &Area<'_>, area: &Area<'_>, panel: &Panel) -> Drawn {
    let log_y = spans_decades(&panel.curves);
    let ends = |bar: &Bar| drawable(&[(bar.at, bar.low), (bar.at, bar.high)], log_y);
    let bars: Vec<_> = panel.bars.iter().map(ends).collect();
    let points: Vec<_> = panel
        .curves
        .iter()
        .map(|curve| drawable(&curve.points, log_y))
        .collect();
    let all = || points.iter().chain(&bars).flatten();
    let x = Axis::linear(all().map(|(x, _)| *x));
    let y = match log_y {
        true => Axis::logarithmic(all().map(|(_, y)| *y)),
        false => Axis::linear(all().map(|(_, y)| *y)),
    };
    let scale = if log_y { " (log scale)" } else { "" };
    let mut builder = ChartBuilder::on(area);
    builder
        .margin(12)
        .margin_right(28)
        .x_label_area_size(76)
        .y_label_area_size(60 + (y.widest() as f64 * TEXT * CHARACTER) as i32);
    let mut chart = builder.build_cartesian_2d(x.clone(), y.clone())?;
    chart
        .configure_mesh()
        .axis_style(INK)
        .bold_line_style(GRID.stroke_width(2))
        .light_line_style(TRANSPARENT)
        .label_style(font(TEXT).color(&INK))
        .axis_desc_style(font(TEXT).color(&INK))
        .x_desc(cut(&panel.x_label, X_CHARACTERS))
        .y_desc(cut(&panel.y_label, Y_CHARACTERS) + scale)
        .draw()?;

    let inside = chart.as_coord_spec();
    let pixels = |points: &[(f64, f64)]| {
        let places = points.iter().map(|(px, py)| (x.place(*px), y.place(*py)));
        let mut pixels: Vec<_> = places.map(|place| inside.translate(&place)).collect();
        // Points that fall on the same pixel say nothing new.
        pixels.dedup();
        pixels
    };
    // All faint lines are below all others.
    for (number, (curve, points)) in panel.curves.iter().zip(&points).enumerate() {
        if curve.kind == Kind::Noisy && points.len() >= WINDOW {
            let faint = Look::of(number).colour.mix(0.25).stroke_width(2);
            root.draw(&PathElement::new(
                pixels(&thinned(points, MAX_POINTS)),
                faint,
            ))?;
        }
    }
    for (number, (curve, points)) in panel.curves.iter().zip(&points).enumerate() {
        let look = Look::of(number);
        let pixels = pixels(&match curve.kind {
            Kind::Noisy => drawable(&smoothed(points), log_y),
            Kind::Exact => thinned(points, MAX_POINTS),
        });
        if pixels.len() > 1 {
            let line = look.colour.stroke_width(4);
            root.draw(&PathElement::new(pixels.clone(), line))?;
        }
        for place in marked(pixels.len(), number) {
            look.mark(root, pixels[place])?;
        }
    }
    for bar in &bars {
        look::bar(root, &pixels(bar))?;
    }
    if let Some(mark) = &panel.mark {
        for pixel in pixels(&drawable(&[mark.at], log_y)) {
            look::ring(root, pixel)?;
        }
    }
    Ok(())
}

/// Whether all that can be drawn is positive and spans more than a decade.
fn spans_decades(curves: &[Curve]) -> bool {
    let points = curves.iter().flat_map(|curve| &curve.points);
    let values = points.map(|(_, y)| *y).filter(|y| y.abs() <= LARGEST).fold(
        (f64::INFINITY, 0.0_f64),
        |(least, most), y| {
            // A loss of exactly zero has no place there, but those before it have.
            let least = if y == 0.0 { least } else { least.min(y) };
            (least, most.max(y))
        },
    );
    values.0 > 0.0 && values.1 / values.0 > LOGARITHMIC
}

/// Returns the points that can be drawn.
fn drawable(points: &[(f64, f64)], log_y: bool) -> Vec<(f64, f64)> {
    let good = |value: f64| value.abs() <= LARGEST;
    let points = points.iter().copied();
    points
        .filter(|(x, y)| good(*x) && good(*y) && (!log_y || *y > 0.0))
        .collect()
}

/// Returns every k-th point and the last, with the smallest k that leaves at most `most`.
fn thinned(points: &[(f64, f64)], most: usize) -> Vec<(f64, f64)> {
    places(points.len(), most)
        .into_iter()
        .map(|place| points[place])
        .collect()
}

fn places(count: usize, most: usize) -> Vec<usize> {
    let Some(last) = count.checked_sub(1) else {
        return Vec::new();
    };
    let step = if count <= most {
        1
    } else {
        last.div_ceil(most - 1)
    };
    let mut places: Vec<usize> = (0..count).step_by(step).collect();
    if last % step != 0 {
        places.push(last);
    }
    places
}

/// Returns the mean over a twentieth of the points around each, at as many of them as are drawn.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let half = points.len() / WINDOW / 2;
    let mean = |place: usize| {
        // As far to the left as to the right, so that a line that rises or falls keeps its ends.
        let half = half.min(place).min(points.len() - 1 - place);
        let window = &points[place - half..=place + half];
        let n = window.len() as f64;
        (
            points[place].0,
            window.iter().map(|(_, y)| y / n).sum::<f64>(),
        )
    };
    places(points.len(), MAX_SMOOTHED)
        .into_iter()
        .map(mean)
        .collect()
}

/// A sans-serif font of the given size in pixels.
fn font(pixels: f64) -> FontDesc<'static> {
    // The backend divides by this number.
    FontDesc::new(FontFamily::SansSerif, pixels * 1.24, FontStyle::Normal)
}

/// The text on one line, without those characters that XML does not allow.
fn plain(text: &str) -> String {
    let allowed = |character: char| match character {
        '\u{fffe}' | '\u{ffff}' => '\u{fffd}',
        character if character.is_control() => ' ',
        character => character,
    };
    text.trim().chars().map(allowed).collect()
}

/// [`plain`] text, cut after `characters` characters.
fn cut(text: &str, characters: usize) -> String {
    let mut cut = plain(text);
    if cut.chars().count() > characters {
        cut = cut.chars().take(characters - 1).collect();
        cut.push('\u{2026}');
    }
    cut
}
