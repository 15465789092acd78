//! Tables that more than one benchmark prints.

use strandline_storage::KindSize;

/// Prints what each kind has more than before, a transaction, and all together; returns the latter.
pub fn print_sizes(after: &[KindSize], before: &[KindSize], transactions: u64) -> f64 {
    println!("{:<34} {:>12} {:>14} {:>16}", "bytes by kind", "count", "bytes", "a transaction");
    let mut sum = 0;
    for found in after {
        let (count, size) = before.iter().find(|b| b.kind == found.kind).map_or((0, 0), |b| (b.count, b.size));
        let (count, size) = (found.count.saturating_sub(count), found.size.saturating_sub(size));
        sum += size;
        println!("{:<34} {count:>12} {size:>14} {:>16.1}", found.kind, size as f64 / transactions as f64);
    }
    println!("{:<34} {:>12} {sum:>14} {:>16.1}", "together", "", sum as f64 / transactions as f64);
    sum as f64 / transactions as f64
}
