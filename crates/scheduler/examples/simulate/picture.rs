//! Drawings for papers and pages: one SVG, without any font but the viewer's own.

use std::error::Error;
use std::ops::Range;
use std::time::Duration;

use plotters::chart::ChartContext;
use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use volley_scheduler::Priority;

use crate::simulation::{End, History, Record};
use crate::tally::Tally;

/// In half pixels: coordinates are whole numbers, and a picture is looked at about 800 pixels wide.
const WIDTH: u32 = 1_600;
const TITLE: u32 = 130;
const OVER_TIME: u32 = 420;
const BY_CLASS: u32 = 560;
const REPLICAS: u32 = 320;
const MARGIN: u32 = 24;
const CAPTION: u32 = 64;
/// What a line's name takes in a caption, with its sample.
const NAME: i32 = 150;

const COLUMNS: usize = 120;
/// Points of a curve of answer times.
const POINTS: usize = 240;

const TEXT: i32 = 24;
const INK: RGBColor = RGBColor(40, 40, 40);
const FAINT: RGBColor = RGBColor(225, 225, 225);
// Okabe and Ito's palette (2008, "Color universal design"), which the colour-blind can tell apart.
const ORANGE: RGBColor = RGBColor(230, 159, 0);
const SKY: RGBColor = RGBColor(86, 180, 233);
const GREEN: RGBColor = RGBColor(0, 158, 115);
const BLUE: RGBColor = RGBColor(0, 114, 178);
const VERMILION: RGBColor = RGBColor(213, 94, 0);
const PURPLE: RGBColor = RGBColor(204, 121, 167);
/// Of lines that are drawn over each other: where two agree, both are seen.
const WIDTHS: [u32; Priority::COUNT] = [9, 7, 5, 3];
/// Critical first.
const CLASSES: [RGBColor; Priority::COUNT] = [VERMILION, BLUE, GREEN, PURPLE];

type Chart<'a, 'b, X, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn Error>>;

/// What was offered, answered in time and given up over time; how long answers took and how many came in time, by class;
/// and how large the fleet was, if that changed.
pub(crate) struct Picture<'a> {
    pub(crate) history: &'a History,
    pub(crate) duration: Duration,
    pub(crate) title: &'a str,
    /// The setting, in a line.
    pub(crate) subtitle: &'a str,
}

impl Picture<'_> {
    /// The picture as the text of an SVG file.
    ///
    /// # Errors
    /// When the library cannot draw it.
    pub(crate) fn svg(&self) -> Result<String, Box<dyn Error>> {
        let sizes = &self.history.sizes;
        let scaled = sizes.iter().any(|size| size != &sizes[0]);
        let height = TITLE + OVER_TIME + BY_CLASS + if scaled { REPLICAS } else { 0 };
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
            root.fill(&WHITE)?;
            let (title, rest) = root.split_vertically(TITLE);
            title.draw(&Text::new(self.title, (MARGIN as i32, 28), bold(36)))?;
            title.draw(&Text::new(self.subtitle, (MARGIN as i32, 80), text(TEXT)))?;
            let (over_time, rest) = rest.split_vertically(OVER_TIME);
            self.draw_over_time(&over_time)?;
            let (by_class, replicas) = rest.split_vertically(BY_CLASS);
            let (times, attainment) = by_class.split_horizontally(WIDTH * 3 / 5);
            let tallies =
                Priority::ALL.map(|class| Tally::of(self.history.records.iter().filter(|record| record.is_in(class))));
            self.draw_times(&times, &tallies)?;
            draw_attainment(&attainment, &tallies)?;
            if scaled {
                self.draw_replicas(&replicas)?;
            }
            root.present()?;
        }
        Ok(svg)
    }

    fn draw_over_time(&self, area: &Area<'_>) -> Drawn {
        let seconds = self.duration.as_secs_f64();
        let width = seconds / COLUMNS as f64;
        let rates = |keep: &dyn Fn(&Record) -> bool| {
            let mut counts = [0_u32; COLUMNS];
            for record in self.history.records.iter().filter(|&record| keep(record)) {
                counts[((record.arrival.at.as_secs_f64() / width) as usize).min(COLUMNS - 1)] += 1;
            }
            let middles = (0..COLUMNS).map(|column| (column as f64 + 0.5) * width);
            middles.zip(counts).map(|(at, count)| (at, f64::from(count) / width)).collect::<Vec<_>>()
        };
        let offered = rates(&|_| true);
        let most = offered.iter().map(|&(_, rate)| rate).fold(1.0, f64::max);
        let lines = [
            ("offered", INK, offered),
            ("in time", BLUE, rates(&Record::in_time)),
            ("given up", ORANGE, rates(&|record| record.end != End::Answered)),
        ];

        let names: Vec<_> = lines.iter().map(|(name, colour, _)| (*name, *colour)).collect();
        let mut chart = panel(area, "What became of the requests, by their time of arrival", &names)?
            .build_cartesian_2d(0.0..seconds, 0.0..most * 1.1)?;
        axes(&mut chart, "virtual time, seconds", "requests per second")?;
        for ((_, colour, points), width) in lines.into_iter().zip(WIDTHS) {
            chart.draw_series(LineSeries::new(points, colour.stroke_width(width)))?;
        }
        Ok(())
    }

    fn draw_times(&self, area: &Area<'_>, tallies: &[Tally]) -> Drawn {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let records = &self.history.records;
        let deadline = records.first().map(|record| record.arrival.deadline);
        let deadline = deadline.filter(|&shared| records.iter().all(|record| record.arrival.deadline == shared));
        let answers = || tallies.iter().flat_map(|tally| tally.latencies.iter().copied()).chain(deadline).map(millis);
        let least = answers().fold(f64::INFINITY, f64::min).clamp(0.01, 1e6);
        let most = answers().fold(least, f64::max);
        let span = least / 1.1..most * 1.6;

        let classes: Vec<_> = Priority::ALL.map(Priority::name).into_iter().zip(CLASSES).collect();
        let log = span.clone().log_scale().with_key_points(one_two_five(&span));
        let mut chart = panel(area, "Time to answer", &classes)?.build_cartesian_2d(log, 0.0..115.0)?;
        axes(&mut chart, "from arrival to answer, ms (logarithmic)", "answered by then, % of the offered")?;
        for ((colour, tally), width) in CLASSES.into_iter().zip(tallies).zip(WIDTHS) {
            chart.draw_series(LineSeries::new(cumulative(tally, &span), colour.stroke_width(width)))?;
        }
        if let Some(deadline) = deadline {
            let at = millis(deadline);
            chart.draw_series([DashedPathElement::new([(at, 0.0), (at, 115.0)], 8, 8, INK.stroke_width(2))])?;
            let note = text(TEXT).pos(Pos::new(HPos::Right, VPos::Top));
            chart.draw_series([Text::new("deadline ", (at, 113.0), note)])?;
        }
        Ok(())
    }

    fn draw_replicas(&self, area: &Area<'_>) -> Drawn {
        let sizes = &self.history.sizes;
        let seconds = self.duration.as_secs_f64();
        let most = sizes.iter().copied().max().unwrap_or(1) as f64;
        let step = seconds / sizes.len() as f64;
        let corners = sizes
            .iter()
            .enumerate()
            .flat_map(|(look, &size)| [(look as f64 * step, size as f64), ((look + 1) as f64 * step, size as f64)]);
        let mut chart = panel(area, "Replicas that the autoscaler keeps", &[])?
            .build_cartesian_2d(0.0..seconds, 0.0..most * 1.15)?;
        axes(&mut chart, "virtual time, seconds", "replicas")?;
        chart.draw_series(AreaSeries::new(corners, 0.0, SKY.mix(0.4)).border_style(BLUE.stroke_width(4)))?;
        Ok(())
    }
}

/// The share of the offered that had its answer by each of some times, in percent.
fn cumulative(tally: &Tally, span: &Range<f64>) -> impl Iterator<Item = (f64, f64)> {
    let ratio = span.end / span.start;
    (0..=POINTS).map(move |point| {
        let millis = span.start * ratio.powf(point as f64 / POINTS as f64);
        let by_then = tally.latencies.partition_point(|latency| latency.as_secs_f64() * 1e3 <= millis);
        (millis, by_then as f64 / tally.offered.max(1) as f64 * 100.0)
    })
}

/// Where a logarithmic axis is labelled.
fn one_two_five(span: &Range<f64>) -> Vec<f64> {
    let decades = span.start.log10().floor() as i32..=span.end.log10().ceil() as i32;
    let points = decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|first| first * 10_f64.powi(decade)));
    points.filter(|point| span.contains(point)).collect()
}

fn draw_attainment(area: &Area<'_>, tallies: &[Tally]) -> Drawn {
    let count = tallies.len() as f64;
    let mut chart = panel(area, "Answered in time", &[])?.build_cartesian_2d(0.0..100.0, 0.0..count)?;
    let mut mesh = chart.configure_mesh();
    mesh.disable_mesh().disable_y_axis().x_desc("% of the offered").x_labels(6).axis_style(INK.stroke_width(2));
    mesh.x_label_formatter(&ToString::to_string).label_style(text(TEXT)).axis_desc_style(text(TEXT)).draw()?;
    for (row, ((class, colour), tally)) in Priority::ALL.into_iter().zip(CLASSES).zip(tallies).enumerate() {
        let attainment = tally.attainment() * 100.0;
        let top = count - row as f64;
        chart.draw_series([Rectangle::new([(0.0, top - 0.5), (attainment, top - 0.95)], colour.filled())])?;
        let above = text(TEXT).pos(Pos::new(HPos::Left, VPos::Bottom));
        let words = format!("{}: {attainment:.2} % of {}", class.name(), tally.offered);
        chart.draw_series([Text::new(words, (0.0, top - 0.47), above)])?;
    }
    Ok(())
}

/// A chart below a caption and the names of its lines, ready for its coordinates.
fn panel<'a, 'b>(
    area: &'a Area<'b>,
    caption: &str,
    lines: &[(&str, RGBColor)],
) -> Result<ChartBuilder<'a, 'b, SVGBackend<'b>>, Box<dyn Error>> {
    area.draw(&Text::new(caption.to_owned(), (MARGIN as i32, 10), bold(28)))?;
    let mut right = area.dim_in_pixel().0 as i32 - MARGIN as i32;
    for &(name, colour) in lines.iter().rev() {
        right -= NAME;
        area.draw(&Rectangle::new([(right, 20), (right + 36, 30)], colour.filled()))?;
        area.draw(&Text::new(name.to_owned(), (right + 46, 13), text(TEXT)))?;
    }
    let mut chart = ChartBuilder::on(area);
    chart.margin(MARGIN).margin_top(CAPTION).margin_right(2 * MARGIN).x_label_area_size(72).y_label_area_size(110);
    Ok(chart)
}

fn text(size: i32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

fn bold(size: i32) -> TextStyle<'static> {
    ("sans-serif", size, FontStyle::Bold).into_font().color(&INK)
}

fn axes<X, Y>(chart: &mut Chart<'_, '_, X, Y>, x: &str, y: &str) -> Drawn
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(x).y_desc(y).x_labels(10).y_labels(6).label_style(text(TEXT)).axis_desc_style(text(TEXT));
    mesh.light_line_style(TRANSPARENT).bold_line_style(FAINT.stroke_width(2)).axis_style(INK.stroke_width(2));
    mesh.x_label_formatter(&ToString::to_string).y_label_formatter(&ToString::to_string);
    mesh.draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrivals::Arrival;

    #[test]
    fn the_picture_is_well_formed_and_names_every_class_the_setting_and_the_deadline() {
        let records = (0..400_u64).map(|number| {
            let at = Duration::from_millis(number * 10);
            let lane = Priority::ALL[number as usize % Priority::COUNT];
            let arrival = Arrival { at, lane, tenant: 0, deadline: Duration::from_millis(100) };
            let end = if lane == Priority::Low { End::Dropped } else { End::Answered };
            Record { arrival, end, told: at + Duration::from_millis(5 + number % 40) }
        });
        let (records, sizes) = (records.collect(), vec![1, 2, 3, 3]);
        let history = History { records, batches: 1, fingerprint: 0, sizes, available: 4.0, used: 1.0 };
        let duration = Duration::from_secs(4);
        let picture = Picture { history: &history, duration, title: "half < all & more", subtitle: "seed 7" };

        let svg = picture.svg().expect("a string takes it");
        let document = roxmltree::Document::parse(&svg).expect("well formed");
        let texts: Vec<_> = document.descendants().filter_map(|node| node.text()).map(str::trim).collect();
        for class in Priority::ALL {
            assert!(texts.contains(&class.name()), "{texts:?}");
        }
        for words in
            ["half < all & more", "seed 7", "deadline", "low: 0.00 % of 100", "high: 100.00 % of 100", "replicas"]
        {
            assert!(texts.contains(&words), "{words} in {texts:?}");
        }
    }
}
