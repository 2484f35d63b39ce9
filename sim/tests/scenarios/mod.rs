//! What must be shown to hold, by number: one test or more for each safety and liveness case, on the simulator.
//!
//! | case | where |
//! |---|---|
//! | 1 never two leaders in one term; 2 figure 8; 3 one vote a term; 4 nothing leaves before it is durable | `promises` |
//! | 5 what is committed is never cut; 6 snapshots in a hurry; 7 a cluster of one | `logs` |
//! | 8 a new leader's reads; 9 a deposed leader's reads | `reads` |
//! | 10 retries; 11 writes that timed out; 12 equal states | `writes` |
//! | 13 one-way links; 14 partial links; 15 a node that comes back; 16 progress after the faults | `liveness` |
//! | nodes that lose their disk, or find it damaged or older than it was | `lost_disks` |

mod liveness;
mod logs;
mod lost_disks;
mod promises;
mod reads;
mod writes;
