use core::fmt;
use core::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use contour::ContourBuilder;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use resvg::{tiny_skia, usvg};

use super::landscape::{Axis, LossCurve, LossSurface};

const FONT: &str = "sans-serif";
const PANEL: (u32, u32) = (460, 440);
const BAR: u32 = 130;
/// Where the loss is not finite.
const HOLE: RGBColor = RGBColor(200, 200, 200);
/// Okabe and Ito's colours, which the colour-blind can tell apart.
const COLOURS: [RGBColor; 7] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// A picture of [losses around a module's weights](crate::Flatness), as SVG or PNG.
///
/// Several are drawn in one picture, on the same scale: otherwise nobody sees which is flatter. The
/// scale is logarithmic if all losses are above 0 and the largest is more than 30 times the smallest.
/// The colours are told apart by the colour-blind. Where a loss is not finite there is a gap, grey in
/// contours, and the name says how many points that are.
///
/// # Example
///
/// ```
/// use burn_sam::{Axis, LossCurve, Picture};
///
/// let curve = |curvature: f64| {
///     let positions: Vec<f64> = (-10..=10).map(|step| f64::from(step) / 10.0).collect();
///     let losses = positions.iter().map(|x| Some(curvature * x * x)).collect();
///     let label = "random direction 0, in filter norms".to_string();
///     LossCurve { x: Axis { label, positions }, losses }
/// };
/// let picture = Picture::curves(&[("SGD", &curve(3.0)), ("SAM", &curve(1.0))])?;
/// assert!(picture.as_svg().contains("filter norms"));
/// # Ok::<(), burn_sam::PictureError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Picture {
    svg: String,
}

/// Why there is no picture.
#[derive(Debug)]
#[non_exhaustive]
pub enum PictureError {
    /// There is nothing to draw.
    Nothing,
    /// What has this name has not one loss (or a hole) for each position, or one that is not finite, or
    /// less than 2 positions, or they do not ascend.
    Malformed(String),
    /// The file's name ends neither in `.svg` nor in `.png`.
    Extension(PathBuf),
    /// The file cannot be written.
    File(PathBuf, std::io::Error),
}

impl fmt::Display for PictureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("there is nothing to draw"),
            Self::Malformed(name) => write!(
                f,
                "{name} cannot be drawn: it must have one finite loss or a hole (None) for each \
                 position, and two ascending positions or more"
            ),
            Self::Extension(file) => write!(
                f,
                "{} is neither an .svg nor a .png file: end its name in one of these",
                file.display()
            ),
            Self::File(file, error) => write!(f, "cannot write {}: {error}", file.display()),
        }
    }
}

impl core::error::Error for PictureError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::File(_, error) => Some(error),
            _ => None,
        }
    }
}

type Result<T> = core::result::Result<T, PictureError>;
type Drawn = core::result::Result<(), Box<dyn core::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

impl Picture {
    /// Lines in one chart, each with its name.
    ///
    /// # Errors
    ///
    /// If there are none, or one of them is not whole.
    pub fn curves(curves: &[(&str, &LossCurve)]) -> Result<Self> {
        for (name, curve) in curves {
            let has_shape = curve.losses.len() == curve.x.positions.len();
            check(name, &[&curve.x], has_shape, curve.losses.iter())?;
        }
        let losses = curves.iter().flat_map(|(_, curve)| &curve.losses);
        let scale = Scale::of(losses.flatten())?;
        let positions = || curves.iter().flat_map(|(_, curve)| &curve.x.positions);
        let x_range = positions().copied().fold(f64::INFINITY, f64::min)
            ..positions().copied().fold(f64::NEG_INFINITY, f64::max);
        Ok(Self::draw((760, 460), |canvas| {
            let mut chart = ChartBuilder::on(canvas)
                .margin(15)
                .margin_right(25)
                .x_label_area_size(50)
                .y_label_area_size(75)
                .build_cartesian_2d(x_range, scale.clone())?;
            chart
                .configure_mesh()
                .x_desc(&curves[0].1.x.label)
                .y_desc(scale.title())
                .axis_desc_style((FONT, 16))
                .label_style((FONT, 14))
                .light_line_style(WHITE)
                .draw()?;
            for ((name, curve), colour) in curves.iter().zip(COLOURS.into_iter().cycle()) {
                let points: Vec<(f64, Option<f64>)> = (curve.x.positions.iter().copied())
                    .zip(curve.losses.iter().copied())
                    .collect();
                let whole = points.split(|(_, loss)| loss.is_none());
                let pieces = whole.filter(|piece| !piece.is_empty()).map(|piece| {
                    let points = piece.iter().filter_map(|&(x, loss)| Some((x, loss?)));
                    points.collect::<Vec<_>>()
                });
                let style = colour.stroke_width(2);
                // A point between two holes is no line.
                let dots = (pieces.clone().filter(|piece| piece.len() == 1))
                    .map(|piece| Circle::new(piece[0], 2, colour.filled()));
                chart.draw_series(dots)?;
                let lines = pieces.map(|piece| PathElement::new(piece, style));
                chart
                    .draw_series(lines)?
                    .label(titled(name, curve.losses.iter()))
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
            }
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperMiddle)
                .background_style(WHITE.mix(0.8))
                .border_style(BLACK.mix(0.3))
                .label_font((FONT, 16))
                .draw()?;
            Ok(())
        }))
    }

    /// Contours, side by side, and a colour bar: a line joins places of the same loss. The cross is
    /// where both directions are 0.
    ///
    /// # Errors
    ///
    /// If there are none, or one of them is not whole.
    pub fn contours(surfaces: &[(&str, &LossSurface)]) -> Result<Self> {
        Self::side_by_side(surfaces, |panel, name, surface, scale| {
            let [xs, ys] = [&surface.x.positions, &surface.y.positions];
            let mut chart = ChartBuilder::on(panel)
                .caption(name, (FONT, 20))
                .margin(10)
                .x_label_area_size(45)
                .y_label_area_size(60)
                .build_cartesian_2d(range(xs), range(ys))?;
            chart.plotting_area().fill(&scale.colour(0.0))?;
            // The lines around a hole are those around a peak; what stands for it is painted over.
            let parts: Vec<f64> = (surface.losses.iter().flatten())
                .map(|loss| loss.map_or(1.0, |loss| scale.part(loss)))
                .collect();
            let bands: Vec<Range<f64>> = scale.bands().skip(1).collect();
            let thresholds: Vec<f64> = bands.iter().map(|band| band.start).collect();
            let contours =
                ContourBuilder::new(xs.len(), ys.len(), true).contours(&parts, &thresholds)?;
            for (contour, band) in contours.iter().zip(&bands) {
                let colour = scale.colour_of(band);
                for polygon in contour.geometry() {
                    let rings = core::iter::once(polygon.exterior()).chain(polygon.interiors());
                    let rings: Vec<Vec<(f64, f64)>> = rings
                        .map(|ring| {
                            (ring.coords())
                                .map(|c| (at(xs, c.x), at(ys, c.y)))
                                .collect()
                        })
                        .collect();
                    // One outline that goes out to each hole and comes back.
                    let start = rings[0][0];
                    let outline = rings
                        .iter()
                        .flat_map(|ring| ring.iter().copied().chain([start]));
                    let outline: Vec<_> = outline.collect();
                    chart.draw_series([Polygon::new(outline, colour)])?;
                    let lines = rings.iter().flat_map(|ring| inside(ring, xs, ys));
                    let style = BLACK.mix(0.4).stroke_width(1);
                    chart.draw_series(lines.map(|line| PathElement::new(line, style)))?;
                }
            }
            let holes = surface.losses.iter().enumerate().flat_map(|(row, losses)| {
                let holes = losses.iter().enumerate().filter(|(_, loss)| loss.is_none());
                holes.map(move |(column, _)| {
                    // From one neighbour to the other: what is in between is not known.
                    let corner = |to: f64| (at(xs, column as f64 + to), at(ys, row as f64 + to));
                    Rectangle::new([corner(-0.5), corner(1.5)], HOLE.filled())
                })
            });
            chart.draw_series(holes)?;
            chart.draw_series([Cross::new((0.0, 0.0), 6, WHITE.stroke_width(2))])?;
            chart
                .configure_mesh()
                .disable_mesh()
                .x_desc(&surface.x.label)
                .y_desc(&surface.y.label)
                .x_labels(5)
                .y_labels(5)
                .axis_desc_style((FONT, 15))
                .label_style((FONT, 14))
                .draw()?;
            Ok(())
        })
    }

    /// Surfaces seen from above, side by side, and a colour bar: the loss is the height.
    ///
    /// # Errors
    ///
    /// If there are none, or one of them is not whole.
    pub fn surfaces(surfaces: &[(&str, &LossSurface)]) -> Result<Self> {
        Self::side_by_side(surfaces, |panel, name, surface, scale| {
            let [xs, ys] = [&surface.x.positions, &surface.y.positions];
            let mut chart = ChartBuilder::on(panel)
                .caption(name, (FONT, 20))
                .margin(10)
                .margin_bottom(60)
                .build_cartesian_3d(range(xs), scale.clone(), range(ys))?;
            chart.with_projection(|mut view| {
                view.pitch = 0.45;
                view.yaw = 0.7;
                view.scale = 0.8;
                view.into_matrix()
            });
            chart
                .configure_axes()
                .light_grid_style(BLACK.mix(0.08))
                .max_light_lines(1)
                .label_style((FONT, 13))
                .draw()?;
            // From the back to the front: what is near hides what is behind it.
            let cells = (0..ys.len() - 1)
                .flat_map(|row| (0..xs.len() - 1).rev().map(move |column| (column, row)));
            chart.draw_series(cells.filter_map(|(column, row)| {
                let corners = [(0, 0), (0, 1), (1, 1), (1, 0)].map(|(right, down)| {
                    let (column, row) = (column + right, row + down);
                    Some((xs[column], surface.losses[row][column]?, ys[row]))
                });
                let corners: Vec<_> = corners.into_iter().collect::<Option<_>>()?;
                let parts = corners.iter().map(|corner| scale.part(corner.1));
                let colour = scale.colour(parts.sum::<f64>() / 4.0);
                Some(Polygon::new(corners, colour.filled()))
            }))?;
            let style = TextStyle::from((FONT, 15).into_font());
            let style = style.pos(Pos::new(HPos::Center, VPos::Center));
            for (line, edge, axis) in [(34, "left", &surface.x), (14, "right", &surface.y)] {
                let place = (PANEL.0 as i32 / 2, PANEL.1 as i32 - line);
                let text = format!("{edge} edge: {}", axis.label);
                panel.draw(&Text::new(text, place, style.clone()))?;
            }
            Ok(())
        })
    }

    /// The picture as SVG. Its text is text, in the viewer's own sans-serif font.
    pub fn as_svg(&self) -> &str {
        &self.svg
    }

    /// The picture as PNG, with two pixels for one of the SVG's. Its text is in DejaVu Sans, which
    /// comes with the crate.
    pub fn to_png(&self) -> Vec<u8> {
        const SCALE: f32 = 2.0;
        let mut fonts = usvg::fontdb::Database::new();
        fonts.load_font_data(dejavu::sans::regular().to_vec());
        fonts.set_sans_serif_family("DejaVu Sans");
        let options = usvg::Options {
            fontdb: Arc::new(fonts),
            ..usvg::Options::default()
        };
        let tree = usvg::Tree::from_str(&self.svg, &options).expect("SVG of our own");
        let size = (tree.size().to_int_size().scale_by(SCALE)).expect("a size of our own");
        let mut pixels = tiny_skia::Pixmap::new(size.width(), size.height()).expect("an area");
        let transform = tiny_skia::Transform::from_scale(SCALE, SCALE);
        resvg::render(&tree, transform, &mut pixels.as_mut());
        pixels
            .encode_png()
            .expect("writing to memory does not fail")
    }

    /// Writes the picture as SVG or PNG, as the file's name ends.
    ///
    /// # Errors
    ///
    /// If it ends otherwise, or the file cannot be written.
    pub fn save(&self, file: impl AsRef<Path>) -> Result<()> {
        let file = file.as_ref();
        let written = match file.extension().and_then(|extension| extension.to_str()) {
            Some("svg") => std::fs::write(file, &self.svg),
            Some("png") => std::fs::write(file, self.to_png()),
            _ => return Err(PictureError::Extension(file.into())),
        };
        written.map_err(|error| PictureError::File(file.into(), error))
    }

    /// A panel for each surface, and a colour bar for all.
    fn side_by_side(
        surfaces: &[(&str, &LossSurface)],
        panel: impl Fn(&Area, &str, &LossSurface, &Scale) -> Drawn,
    ) -> Result<Self> {
        for (name, surface) in surfaces {
            let LossSurface { x, y, losses } = surface;
            let has_shape = losses.len() == y.positions.len()
                && losses.iter().all(|row| row.len() == x.positions.len());
            check(name, &[x, y], has_shape, losses.iter().flatten())?;
        }
        let losses = surfaces
            .iter()
            .flat_map(|(_, surface)| surface.losses.iter().flatten());
        let scale = Scale::of(losses.flatten())?;
        let width = PANEL.0 * surfaces.len() as u32;
        Ok(Self::draw((width + BAR, PANEL.1), |canvas| {
            let (panels, bar) = canvas.split_horizontally(width);
            let panels = panels.split_evenly((1, surfaces.len()));
            for (area, (name, surface)) in panels.iter().zip(surfaces) {
                let title = titled(name, surface.losses.iter().flatten());
                panel(area, &title, surface, &scale)?;
            }
            scale.draw_bar(&bar)
        }))
    }

    fn draw(size: (u32, u32), draw: impl FnOnce(&Area) -> Drawn) -> Self {
        let mut svg = String::new();
        let canvas = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        (canvas.fill(&WHITE).map_err(Into::into))
            .and_then(|()| draw(&canvas))
            .and_then(|()| canvas.present().map_err(Into::into))
            .expect("drawing into a string does not fail");
        drop(canvas);
        Self { svg }
    }
}

/// From the lowest loss of a picture, part 0 of the scale, to the highest, part 1.
#[derive(Clone)]
struct Scale {
    ends: Range<f64>,
    logarithmic: bool,
    /// Round numbers between the ends, in ascending order.
    levels: Vec<f64>,
}

impl Scale {
    fn of<'a>(losses: impl Iterator<Item = &'a f64> + Clone) -> Result<Self> {
        let lowest = losses.clone().copied().fold(f64::INFINITY, f64::min);
        let highest = losses.copied().fold(f64::NEG_INFINITY, f64::max);
        if lowest > highest {
            return Err(PictureError::Nothing);
        }
        let logarithmic = lowest > 0.0 && highest > 30.0 * lowest;
        // Of differences at the end of an f64's digits there is nothing to see.
        let least = 1e-12
            * lowest
                .abs()
                .max(highest.abs())
                .max(f64::MIN_POSITIVE.sqrt());
        let ends = match highest - lowest > least {
            true => lowest..highest,
            false => lowest - 0.5..highest + 0.5,
        };
        let levels = match logarithmic {
            true => logarithmic_levels(&ends),
            false => linear_levels(&ends),
        };
        Ok(Self {
            ends,
            logarithmic,
            levels,
        })
    }

    fn part(&self, loss: f64) -> f64 {
        let Range { start, end } = self.ends;
        match self.logarithmic {
            true => (loss.ln() - start.ln()) / (end.ln() - start.ln()),
            false => (loss - start) / (end - start),
        }
    }

    fn title(&self) -> &'static str {
        match self.logarithmic {
            true => "loss (log scale)",
            false => "loss",
        }
    }

    /// The parts between one level and the next.
    fn bands(&self) -> impl Iterator<Item = Range<f64>> {
        let levels = self.levels.iter().map(|&level| self.part(level));
        let ends: Vec<f64> = core::iter::once(0.0).chain(levels).chain([1.0]).collect();
        (1..ends.len()).map(move |band| ends[band - 1]..ends[band])
    }

    fn colour(&self, part: f64) -> RGBColor {
        ViridisRGB.get_color(part)
    }

    fn colour_of(&self, band: &Range<f64>) -> RGBColor {
        self.colour((band.start + band.end) / 2.0)
    }

    fn draw_bar(&self, area: &Area) -> Drawn {
        let (_, height) = area.dim_in_pixel();
        let (top, bottom) = (50.0, f64::from(height) - 65.0);
        let y = |part: f64| (bottom + (top - bottom) * part).round() as i32;
        for band in self.bands() {
            let corners = [(15, y(band.end)), (35, y(band.start))];
            area.draw(&Rectangle::new(corners, self.colour_of(&band).filled()))?;
        }
        area.draw(&Rectangle::new(
            [(15, y(1.0)), (35, y(0.0))],
            BLACK.mix(0.5),
        ))?;
        let text = |size: u32| {
            let style = TextStyle::from((FONT, size).into_font());
            style.pos(Pos::new(HPos::Left, VPos::Center))
        };
        area.draw(&Text::new(self.title(), (15, 30), text(15)))?;
        for &level in &self.levels {
            let y = y(self.part(level));
            area.draw(&PathElement::new([(35, y), (40, y)], BLACK))?;
            area.draw(&Text::new(number(level), (45, y), text(14)))?;
        }
        Ok(())
    }
}

/// The axis of the losses, with a tick at each level.
impl Ranged for Scale {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, loss: &f64, (start, end): (i32, i32)) -> i32 {
        start + (f64::from(end - start) * self.part(*loss)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.levels.clone()
    }

    fn range(&self) -> Range<f64> {
        self.ends.clone()
    }
}

impl ValueFormatter<f64> for Scale {
    fn format(loss: &f64) -> String {
        number(*loss)
    }
}

/// About ten of them.
fn linear_levels(ends: &Range<f64>) -> Vec<f64> {
    let rough = (ends.end - ends.start) / 10.0;
    let decade = 10f64.powf(rough.log10().floor());
    let step = decade
        * [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .find(|m| m * decade >= rough)
            .unwrap_or(10.0);
    let first = (ends.start / step).floor() as i64;
    (first..)
        .map(|level| level as f64 * step)
        .skip_while(|level| *level <= ends.start)
        .take_while(|level| *level < ends.end)
        .collect()
}

/// 1, 2 and 5 of each decade, or fewer if these are too many.
fn logarithmic_levels(ends: &Range<f64>) -> Vec<f64> {
    let decades = ends.start.log10().floor() as i32..=ends.end.log10().ceil() as i32;
    let levels = |mantissas: &[f64]| -> Vec<f64> {
        (decades.clone())
            .flat_map(|decade| mantissas.iter().map(move |m| m * 10f64.powi(decade)))
            .filter(|level| ends.contains(level) && *level > ends.start)
            .collect()
    };
    let fine = levels(&[1.0, 2.0, 5.0]);
    if fine.len() <= 14 {
        fine
    } else {
        levels(&[1.0])
    }
}

/// Three digits of a number.
fn number(value: f64) -> String {
    if value != 0.0 && !(1e-3..1e5).contains(&value.abs()) {
        return format!("{value:.0e}");
    }
    let digits = 2 - value.abs().max(1e-3).log10().floor() as i32;
    let text = format!("{value:.*}", digits.max(0) as usize);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    }
}

/// The name, and how much of what it names is missing.
fn titled<'a>(name: &str, losses: impl Iterator<Item = &'a Option<f64>>) -> String {
    match losses.filter(|loss| loss.is_none()).count() {
        0 => name.to_string(),
        holes => format!("{name} ({holes} not finite)"),
    }
}

fn range(positions: &[f64]) -> Range<f64> {
    positions[0]..positions[positions.len() - 1]
}

/// The position of a contour's coordinate, which is 0.5 at the first position, 1.5 at the second.
fn at(positions: &[f64], coordinate: f64) -> f64 {
    let last = positions.len() - 1;
    let index = (coordinate - 0.5).clamp(0.0, last as f64);
    let low = (index.floor() as usize).min(last - 1);
    positions[low] + (positions[low + 1] - positions[low]) * (index - low as f64)
}

/// The pieces of a ring that do not run along the frame.
fn inside(ring: &[(f64, f64)], xs: &[f64], ys: &[f64]) -> Vec<Vec<(f64, f64)>> {
    let is_end = |value: f64, ends: Range<f64>| value == ends.start || value == ends.end;
    let along = |a: f64, b: f64, positions| a == b && is_end(a, range(positions));
    let mut lines = vec![vec![ring[0]]];
    for pair in ring.windows(2) {
        match along(pair[0].0, pair[1].0, xs) || along(pair[0].1, pair[1].1, ys) {
            true => lines.push(vec![pair[1]]),
            false => lines.last_mut().expect("there is one").push(pair[1]),
        }
    }
    lines.retain(|line| line.len() > 1);
    lines
}

fn check<'a>(
    name: &str,
    axes: &[&Axis],
    has_shape: bool,
    mut losses: impl Iterator<Item = &'a Option<f64>>,
) -> Result<()> {
    let ascends = |axis: &&Axis| {
        let positions = &axis.positions;
        positions.len() > 1 && positions.windows(2).all(|pair| pair[0] < pair[1])
    };
    match has_shape
        && axes.iter().all(ascends)
        && losses.all(|loss| loss.is_none_or(f64::is_finite))
    {
        true => Ok(()),
        false => Err(PictureError::Malformed(name.to_string())),
    }
}
