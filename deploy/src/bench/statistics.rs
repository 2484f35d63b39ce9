//! Medians.

/// The middle one, or the mean of the two in the middle; `None` of none.
pub(crate) fn median(numbers: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut numbers: Vec<f64> = numbers.into_iter().collect();
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(numbers[middle]),
        _ => Some(f64::midpoint(numbers[middle - 1], numbers[middle])),
    }
}

/// The median of whole numbers, rounded down; 0 of none.
pub(crate) fn median_of_whole(numbers: impl IntoIterator<Item = u64>) -> u64 {
    #[expect(clippy::cast_precision_loss, reason = "what is measured stays far below 2^52")]
    let median = median(numbers.into_iter().map(|number| number as f64));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a median is between such numbers"
    )]
    let median = median.unwrap_or_default() as u64;
    median
}

/// Of the first of each round, of the second of each, and so on: the memory of each node, for one.
pub(crate) fn medians_of_each(rounds: &[Vec<u64>]) -> Vec<u64> {
    let count = rounds.iter().map(Vec::len).min().unwrap_or(0);
    let of = |which: usize| median_of_whole(rounds.iter().map(|round| round[which]));
    (0..count).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        assert_eq!(median([3.0, 1.0, 100.0]), Some(3.0));
        assert_eq!(median([4.0, 1.0, 2.0, 100.0]), Some(3.0));
        assert_eq!(median([7.0]), Some(7.0));
        assert_eq!(median([]), None);
    }

    #[test]
    fn the_median_is_of_each_node_by_itself() {
        let rounds = [vec![1, 20, 300], vec![3, 10, 200], vec![2, 90, 100]];
        assert_eq!(medians_of_each(&rounds), [2, 20, 200]);
        assert_eq!(medians_of_each(&rounds[..1]), [1, 20, 300]);
    }
}
