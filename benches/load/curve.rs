//! Changes a second and waits over numbers of callers, as a drawing.

use std::path::Path;

use plotters::prelude::*;

use super::Bench;
use super::callers::Asks;
use super::measured::{changes, measure};

const CALLERS: [usize; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
const SIZE: (u32, u32) = (720, 420);

struct Point {
    callers: f64,
    rate: f64,
    p50: f64,
    p99: f64,
}

/// Measures each number of callers and draws what came of it.
pub(crate) async fn draw(bench: &Bench, file: &Path) {
    let gateway = bench.gateway("curve");
    let mut points = Vec::new();
    println!("\ncallers  changes/s  p50 ms  p99 ms  refused/s");
    for callers in CALLERS {
        let load = changes(&gateway.url, callers, Asks::DistinctImages, bench.duration);
        let measured = measure(&gateway, &load).await;
        // Who finds no room among those who wait is told so at once.
        let refused = measured.outcome.errors as f64 / bench.duration.as_secs_f64();
        let point = Point {
            callers: callers as f64,
            rate: measured.rate,
            p50: measured.outcome.percentile(0.50),
            p99: measured.outcome.percentile(0.99),
        };
        println!(
            "{callers:>7}  {:>9.0}  {:>6.2}  {:>6.2}  {refused:>9.0}",
            point.rate, point.p50, point.p99
        );
        points.push(point);
    }
    drawn(&points, file).unwrap();
    println!("drawn into {}", file.display());
}

fn drawn(points: &[Point], file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let most = |of: fn(&Point) -> f64| points.iter().map(of).fold(0.0, f64::max);
    let callers = 1.0..most(|point| point.callers);
    let rates = 0.0..most(|point| point.rate) * 1.1;
    let least = points
        .iter()
        .map(|point| point.p50)
        .fold(f64::MAX, f64::min);
    let waits = (least * 0.8)..most(|point| point.p99) * 1.2;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .right_y_label_area_size(56)
        .build_cartesian_2d(callers.clone().log_scale().base(2.0), rates)?
        .set_secondary_coord(callers.log_scale().base(2.0), waits.log_scale());
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("callers")
        .x_label_formatter(&|callers| format!("{callers:.0}"))
        .y_desc("changes a second")
        .y_label_formatter(&|rate| format!("{rate:.0}"))
        .draw()?;
    chart
        .configure_secondary_axes()
        .y_desc("ms until the answer")
        .y_label_formatter(&|wait| format!("{wait:.1}"))
        .draw()?;
    let line = |of: fn(&Point) -> f64| points.iter().map(move |point| (point.callers, of(point)));
    let legend = |color: RGBColor| {
        move |(x, y): (i32, i32)| PathElement::new(vec![(x, y), (x + 18, y)], color.stroke_width(2))
    };
    chart
        .draw_series(LineSeries::new(
            line(|point| point.rate),
            BLUE.stroke_width(2),
        ))?
        .label("changes a second")
        .legend(legend(BLUE));
    chart
        .draw_secondary_series(LineSeries::new(
            line(|point| point.p50),
            GREEN.stroke_width(2),
        ))?
        .label("p50")
        .legend(legend(GREEN));
    chart
        .draw_secondary_series(LineSeries::new(
            line(|point| point.p99),
            RED.stroke_width(2),
        ))?
        .label("p99")
        .legend(legend(RED));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(())
}
