//! Searching ascending numbers that grow about evenly: where the number sought should be, one looks first.
//!
//! Each number of a large mapped file that is looked at may be a miss in every cache of the processor, which costs more than a hundred
//! comparisons. Halving looks at one for each doubling of the file; this at three or four, however long it is, where numbers grow evenly, and at
//! no more than twice as many as halving where they do not.

/// The last of the places from `low` to `high` whose number is not above `sought`; that of `low` must not be, and numbers must not descend.
/// Where they do, it is any of the places.
/// # Errors
/// What `number` gives.
pub(crate) fn last_not_above<E>(mut low: u64, mut high: u64, sought: u64, mut number: impl FnMut(u64) -> Result<u64, E>) -> Result<u64, E> {
    let mut low_number = number(low)?;
    let mut high_number = number(high)?;
    if high_number <= sought {
        return Ok(high);
    }
    let mut halve = false;
    while high - low > 1 {
        let place = if halve {
            low + (high - low) / 2
        } else {
            let share = u128::from(high - low) * u128::from(sought.saturating_sub(low_number))
                / u128::from(high_number.saturating_sub(low_number).max(1));
            low.saturating_add(u64::try_from(share).unwrap_or(u64::MAX)).clamp(low + 1, high - 1)
        };
        let width = high - low;
        let found = number(place)?;
        if found <= sought {
            (low, low_number) = (place, found);
        } else {
            (high, high_number) = (place, found);
        }
        // A step that has not left much is followed by one like it.
        halve = !halve && (high - low) > width / 8;
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// The place found, and how many numbers were looked at.
    fn search(numbers: &[u64], sought: u64) -> (usize, usize) {
        let mut count = 0;
        let number = |place: u64| {
            count += 1;
            Ok::<_, Infallible>(numbers[place as usize])
        };
        let Ok(found) = last_not_above(0, numbers.len() as u64 - 1, sought, number);
        (found as usize, count)
    }

    fn check(numbers: &[u64]) -> usize {
        let probes = numbers.iter().flat_map(|n| [*n, n.saturating_add(1), n.saturating_sub(1)]).filter(|n| *n >= numbers[0]);
        let searched = probes.map(|sought| {
            let (found, count) = search(numbers, sought);
            assert_eq!(found + 1, numbers.partition_point(|n| *n <= sought), "{sought}");
            count
        });
        searched.max().unwrap()
    }

    #[test]
    fn even_numbers_are_found_in_a_few_looks_and_any_in_twice_those_of_halving() {
        let even: Vec<u64> = (0..100_000u64).map(|n| (1 << 40) + n * 536 + n * 7919 % 300).collect();
        let count = check(&even);
        assert!(count <= 8, "{count}");
        let mean = even.iter().map(|n| search(&even, *n).1).sum::<usize>() as f64 / even.len() as f64;
        assert!(mean < 6.0, "{mean}");
        let steep: Vec<u64> = (0..64).map(|n| 1u64 << n).collect();
        let flat: Vec<u64> = (0..5000).map(|n| if n < 4990 { n } else { u64::MAX - 5000 + n }).collect();
        let steps: Vec<u64> = (0..5000).map(|n| n / 900 * 1_000_000).collect();
        for numbers in [steep, flat, steps, vec![7], vec![3, 3, 3], vec![0, u64::MAX]] {
            let count = check(&numbers);
            assert!(count <= 4 + 2 * numbers.len().ilog2() as usize, "{count} of {}", numbers.len());
        }
    }
}
