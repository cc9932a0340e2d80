//! What tells one curve from another.

use plotters::prelude::*;

use super::{Area, Drawn, INK};

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
/// About how many markers a curve has.
const MARKERS: usize = 8;
/// Half the size of a marker in pixels.
const SIZE: i32 = 8;

/// Which of `count` points have a marker: all of a few, else about [`MARKERS`], elsewhere on the next curve so that
/// curves that run together show each other's markers.
pub(super) fn marked(count: usize, number: usize) -> impl Iterator<Item = usize> {
    let step = match count {
        0..=20 => 1,
        count => count.div_ceil(MARKERS),
    };
    let first = (number % 4) * step / 4;
    (first..count).step_by(step)
}

/// Draws a ring around a point that is pointed at.
pub(super) fn ring(area: &Area<'_>, at: (i32, i32)) -> Drawn {
    area.draw(&Circle::new(at, 2 * SIZE, INK.stroke_width(4)))
}

/// Draws a line up and down with a short one across each of its ends.
pub(super) fn bar(area: &Area<'_>, ends: &[(i32, i32)]) -> Drawn {
    let line = Look::of(0).colour.stroke_width(3);
    area.draw(&PathElement::new(ends.to_vec(), line))?;
    for (x, y) in ends {
        let across = vec![(x - SIZE, *y), (x + SIZE, *y)];
        area.draw(&PathElement::new(across, line))?;
    }
    Ok(())
}

/// The form of a marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Circle,
    Square,
    Triangle,
    Cross,
    Diamond,
    Ring,
}

/// The colour and the marker of a curve.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub(super) colour: RGBColor,
    pub(super) shape: Shape,
}

impl Look {
    pub(super) fn of(number: usize) -> Self {
        Self {
            colour: COLOURS[number % COLOURS.len()],
            shape: SHAPES[number % SHAPES.len()],
        }
    }

    pub(super) fn mark(self, area: &Area<'_>, (x, y): (i32, i32)) -> Drawn {
        let (filled, line) = (self.colour.filled(), self.colour.stroke_width(4));
        let corner = |dx: i32, dy: i32| (x + dx * SIZE, y + dy * SIZE);
        match self.shape {
            Shape::Circle => area.draw(&Circle::new((x, y), SIZE, filled)),
            Shape::Square => area.draw(&Rectangle::new([corner(-1, -1), corner(1, 1)], filled)),
            Shape::Triangle => {
                let corners = vec![corner(0, -1), corner(1, 1), corner(-1, 1)];
                area.draw(&Polygon::new(corners, filled))
            }
            Shape::Cross => {
                for ends in [
                    [corner(-1, -1), corner(1, 1)],
                    [corner(-1, 1), corner(1, -1)],
                ] {
                    area.draw(&PathElement::new(ends.to_vec(), line))?;
                }
                Ok(())
            }
            Shape::Diamond => {
                let corners = vec![corner(0, -1), corner(1, 0), corner(0, 1), corner(-1, 0)];
                area.draw(&Polygon::new(corners, filled))
            }
            Shape::Ring => {
                area.draw(&Circle::new((x, y), SIZE, WHITE.filled()))?;
                area.draw(&Circle::new((x, y), SIZE, line))
            }
        }
    }
}
