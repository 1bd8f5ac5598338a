//! Who may be connected: so many in all, and so many from one address.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places for inbound connections, of which there is a limited number.
#[derive(Debug)]
pub struct Places {
    limit: usize,
    limit_per_address: usize,
    free: Arc<Semaphore>,
    /// How many places each address has. Only kept when there is a limit, and only for those who have one, so it is
    /// never larger than the number of connections.
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// One place. It is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
    of_address: Option<(Arc<Places>, IpAddr)>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// All of this many are taken.
    Full(usize),
    /// The client's address has this many already.
    FullForAddress(usize),
}

impl fmt::Display for NoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(limit) => write!(f, "all {limit} connections are in use"),
            Self::FullForAddress(limit) => write!(f, "its address has {limit} connections already"),
        }
    }
}

impl Places {
    /// So many places, of which one address gets so many; 0 for as many as there are.
    #[must_use]
    pub fn new(limit: usize, limit_per_address: usize) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(limit));
        Arc::new(Self { limit, limit_per_address, free, by_address: Mutex::default() })
    }

    /// How many are taken: the connections that are open, upgraded ones included.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.limit - self.free.available_permits()
    }

    /// A place for a connection from `address`.
    ///
    /// # Errors
    /// There is none.
    pub fn take(self: &Arc<Self>, address: IpAddr) -> Result<Place, NoPlace> {
        let permit = Arc::clone(&self.free).try_acquire_owned().map_err(|_| NoPlace::Full(self.limit))?;
        if self.limit_per_address == 0 {
            return Ok(Place { _permit: permit, of_address: None });
        }
        let address = one_client(address);
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_address.entry(address).or_insert(0);
        if *count >= self.limit_per_address {
            return Err(NoPlace::FullForAddress(self.limit_per_address));
        }
        *count += 1;
        Ok(Place { _permit: permit, of_address: Some((Arc::clone(self), address)) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((places, address)) = self.of_address.take() else { return };
        let mut by_address = places.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&address);
            }
        }
    }
}

/// What counts as one client: an IPv4 address, however it is written, and a /64 of IPv6, which is what one customer or
/// one machine gets at least, so that its addresses are no more than one.
fn one_client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(places: &Arc<Places>, address: &str) -> Result<Place, NoPlace> {
        places.take(address.parse().unwrap())
    }

    #[test]
    fn an_address_gets_its_share_and_one_that_goes_makes_room() {
        let places = Places::new(5, 2);
        let first = take(&places, "192.0.2.1").unwrap();
        let _second = take(&places, "::ffff:192.0.2.1").expect("the same address, written otherwise");
        assert_eq!(take(&places, "192.0.2.1").unwrap_err(), NoPlace::FullForAddress(2));
        assert_eq!(places.taken(), 2, "who was refused takes no place");
        let _other = take(&places, "192.0.2.2").expect("another address");
        drop(first);
        take(&places, "192.0.2.1").expect("there is room again");
        assert_eq!(places.taken(), 2);
    }

    #[test]
    fn ipv6_is_counted_by_64() {
        let places = Places::new(5, 1);
        let _one = take(&places, "2001:db8:1:2::1").unwrap();
        assert_eq!(take(&places, "2001:db8:1:2:ffff::9").unwrap_err(), NoPlace::FullForAddress(1));
        take(&places, "2001:db8:1:3::1").expect("another network");
    }

    #[test]
    fn without_a_limit_for_addresses_one_may_have_all_places_and_nothing_is_kept() {
        let places = Places::new(3, 0);
        let all: Vec<_> = (0..3).map(|_| take(&places, "192.0.2.1").unwrap()).collect();
        assert_eq!(take(&places, "192.0.2.2").unwrap_err(), NoPlace::Full(3));
        assert!(places.by_address.lock().unwrap().is_empty());
        drop(all);
        assert_eq!(places.taken(), 0);
    }

    #[test]
    fn addresses_without_connections_are_forgotten() {
        let places = Places::new(9, 3);
        let some: Vec<_> =
            (0..9).map(|number| take(&places, &format!("192.0.2.{number}")).unwrap()).collect();
        assert_eq!(places.by_address.lock().unwrap().len(), 9);
        drop(some);
        assert!(places.by_address.lock().unwrap().is_empty());
    }
}
