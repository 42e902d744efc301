//! `audit export`: streams events to stdout.

use std::process::ExitCode;

use super::progress::Bar;
use super::{ExportArgs, ExportFormat, ExportOrder, Failure, trail_at, write_out};
use crate::audit::{Export, Filter, Format, Order, Progress, ProgressUnit, Reader};

pub(super) async fn run(args: ExportArgs) -> Result<ExitCode, Failure> {
    let ordered = args.from.zip(args.to).is_none_or(|(from, to)| from < to);
    if !ordered {
        return Err(Failure::usage("--from must be before --to"));
    }
    let format = match args.format {
        ExportFormat::Ndjson if args.bom => {
            return Err(Failure::usage("--bom goes with --format csv alone"));
        }
        ExportFormat::Ndjson => Format::Ndjson,
        ExportFormat::Csv if args.bom => Format::CsvWithMark,
        ExportFormat::Csv => Format::Csv,
    };
    let path = trail_at(args.database_url, args.config.as_deref())?;
    let reader = Reader::open(&path).await;
    let reader = reader.map_err(|error| Failure::could_not_run(&error))?;
    let order = match args.order {
        ExportOrder::Desc => Order::Descending,
        ExportOrder::Asc => Order::Ascending,
    };
    let filter = Filter {
        from: args.from,
        to: args.to,
        subject: args.subject,
        image_id: args.image_id,
        account_id: args.account_id,
        operation: args.operation,
        outcome: args.outcome.map(Into::into),
        request_id: args.request_id,
    };
    let mut export = Export::new(reader, filter, order, format, None, args.limit);
    let failed = |error| Failure::could_not_run(&error);
    let bar = Bar::beside_output();
    let total = if bar.is_shown() {
        // Where it takes too long to count, a bar without an end does.
        export.count().await.ok()
    } else {
        None
    };
    while let Some(lines) = export.next().await.map_err(failed)? {
        if !write_out(&lines)? {
            break;
        }
        bar.tell(Progress {
            done: export.given(),
            total,
            unit: ProgressUnit::Events,
        });
    }
    Ok(ExitCode::SUCCESS)
}
