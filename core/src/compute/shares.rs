//! Gateways' shares of the endpoints behind them.

/// Splits `total` in proportion to `weights`: the shares sum to `total` exactly (largest remainder; of equal
/// remainders the earlier wins). All shares are 0 when all weights are.
pub(super) fn split(total: u32, weights: &[u32]) -> Vec<u32> {
    let sum: u64 = weights.iter().map(|w| u64::from(*w)).sum();
    if sum == 0 {
        return vec![0; weights.len()];
    }
    let exact = |w: &u32| u64::from(total) * u64::from(*w);
    // A share is at most `total`, so it fits.
    let mut shares: Vec<u32> =
        weights.iter().map(|w| u32::try_from(exact(w) / sum).unwrap_or(total)).collect();
    let given: u32 = shares.iter().sum();
    let mut order: Vec<usize> = (0..weights.len()).filter(|i| weights[*i] > 0).collect();
    order.sort_by_key(|i| (std::cmp::Reverse(exact(&weights[*i]) % sum), *i));
    for i in order.into_iter().take((total - given) as usize) {
        shares[i] += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_split_follows_the_weights() {
        assert_eq!(split(7, &[1, 1]), [4, 3]);
        assert_eq!(split(1, &[1, 3]), [0, 1]);
        assert_eq!(split(10, &[0, 5, 5]), [0, 5, 5]);
        assert_eq!(split(10, &[0, 0]), [0, 0]);
        assert_eq!(split(3, &[]), [0u32; 0]);
    }

    proptest! {
        #[test]
        fn a_split_sums_to_the_total_and_is_fair(total in 0u32..5000, weights in prop::collection::vec(0u32.., 1..70)) {
            let shares = split(total, &weights);
            let sum: u64 = weights.iter().map(|w| u64::from(*w)).sum();
            if sum == 0 { return Ok(()); }
            prop_assert_eq!(shares.iter().sum::<u32>(), total);
            for (share, weight) in shares.iter().zip(&weights) {
                let floor = u64::from(total) * u64::from(*weight) / sum;
                prop_assert!(u64::from(*share) == floor || u64::from(*share) == floor + 1);
                prop_assert!(*weight > 0 || *share == 0);
            }
        }
    }
}
