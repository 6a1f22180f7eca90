//! Which endpoints a client gets, or why none: the same decisions as the plan's `verdict`,
//! made from a header.

use crate::layout::{Kind, Reason, header_flags};
use crate::service::{List, Service};

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A pod on this node.
    LocalPod,
    /// The node itself.
    Node,
    /// Somebody else, or nobody can tell.
    Other,
}

/// What policy needs to know of the client.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Who it is.
    pub sender: Sender,
    /// There is a way to tell local pods.
    pub detects_pods: bool,
    /// Everything sent to a ClusterIP is masqueraded.
    pub masquerade_all: bool,
}

/// The endpoints a client may be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// One of these; never empty.
    pub list: List,
    /// It is the list of endpoints anywhere, which the Maglev table is about.
    pub is_cluster: bool,
    /// The source becomes the node's address.
    pub masquerade: bool,
}

/// Why there is no endpoint for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is told.
    Reject(Reason),
    /// It is not.
    Drop(Reason),
}

/// Decides on a client of `service` that came by a frontend of `kind`. Source ranges are
/// looked at before, by [`may_enter`].
///
/// # Errors
/// Why there is no endpoint for it.
#[inline(always)]
pub fn choose(service: &Service, kind: Kind, client: &Client) -> Result<Choice, Refused> {
    let (is_local, masquerade) = match kind {
        Kind::ClusterIp => {
            let from_elsewhere = client.detects_pods && client.sender != Sender::LocalPod;
            (
                service.has(header_flags::INTERNAL_LOCAL),
                client.masquerade_all || from_elsewhere,
            )
        }
        Kind::External | Kind::LoadBalancer => {
            if !service.has(header_flags::EXTERNAL_LOCAL) {
                (false, true)
            } else if client.detects_pods && client.sender == Sender::LocalPod {
                // What starts here is sent anywhere: the policy is about traffic from outside.
                (false, false)
            } else if client.sender == Sender::Node {
                (false, true)
            } else {
                (true, false)
            }
        }
    };
    if !service.has(header_flags::ANY_ENDPOINT) {
        return Err(Refused::Reject(Reason::NoEndpoints));
    }
    let list = if is_local {
        service.local()
    } else {
        service.cluster()
    };
    if list.count == 0 {
        return Err(Refused::Drop(Reason::NoLocalEndpoint));
    }
    Ok(Choice {
        list,
        is_cluster: !is_local,
        masquerade,
    })
}

/// Whether source ranges must be looked at for a client of this frontend.
#[inline(always)]
#[must_use]
pub fn has_ranges(service: &Service, kind: Kind) -> bool {
    kind == Kind::LoadBalancer
        && service.header.ranges != 0
        && service.has(header_flags::ANY_ENDPOINT)
}
