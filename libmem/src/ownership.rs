//! A lease that changes its owner: an offer by the one, an acceptance by the other, two signatures on one contract.
//!
//! As with shares, accepting takes two calls on purpose: the first shows the contract, the second signs exactly what was
//! shown.

use std::time::Duration;

use caps::error::{Code, Error, Result};
use caps::id::{ClusterEpoch, PrincipalKey, TransferId};
use caps::key::Signature;
use caps::share::{TransferContract, TransferSigned};
use caps::token::Token;
use caps::wire::row::{LeaseRow, TransferRow};

use crate::lease::{Leased, micros};

/// The contract over `lease`, with a fresh id. The offer stands for `ttl`; without it, as long as the lease lives.
///
/// # Errors
/// `E_RANGE` if the time does not fit.
pub(crate) fn contract(
    cluster: ClusterEpoch,
    lease: &LeaseRow,
    to: PrincipalKey,
    ttl: Option<Duration>,
) -> Result<TransferContract> {
    Ok(TransferContract {
        cluster,
        transfer: TransferId::random(),
        lease: lease.id,
        region: lease.region,
        from: lease.owner,
        to,
        ttl: ttl.map_or(Ok(lease.expires_in), micros)?,
    })
}

/// An offer of a lease, with the text to sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferProposal {
    /// The offer, as lists show it.
    pub transfer: TransferRow,
    /// What accepting it signs.
    pub contract: TransferContract,
    /// The owner's signature on the same contract. It was verified.
    pub by_owner: Signature,
    /// The receiver's, once it accepted. It was verified, too.
    pub by_receiver: Option<Signature>,
}

impl TransferProposal {
    /// Checks that the contract is the offer that was asked for, says what the row says, and was signed by the owner it
    /// names: a node can neither show one thing and have another signed, nor make up an offer.
    ///
    /// # Errors
    /// `E_PROTOCOL` if the contract is another; `E_CONTRACT_SIG` if the owner did not sign it.
    pub(crate) fn checked(self, asked: TransferId, cluster: ClusterEpoch) -> Result<Self> {
        let Self { transfer: row, contract, by_owner, by_receiver } = &self;
        let shown = (row.id, row.lease, row.region, row.from, row.to, row.ttl);
        let signed = (asked, contract.lease, contract.region, contract.from, contract.to, contract.ttl);
        if shown != signed || contract.transfer != asked || contract.cluster != cluster {
            return Err(Error::new(Code::Protocol, "the contract does not say what the offer says"));
        }
        contract.verify(contract.from, by_owner)?;
        if let Some(by_receiver) = by_receiver {
            contract.verify(contract.to, by_receiver)?;
        }
        Ok(self)
    }

    /// The contract with what was signed of it, to be kept or shown to others.
    #[must_use]
    pub const fn signed(&self) -> TransferSigned {
        let Self { contract, by_owner, by_receiver, .. } = *self;
        TransferSigned { contract, by_owner, by_receiver }
    }
}

/// What a node answers to an acceptance.
pub(crate) struct Taking {
    pub(crate) lease: LeaseRow,
    pub(crate) token: Token,
    pub(crate) by_owner: Signature,
}

impl Taking {
    /// With both signatures.
    ///
    /// # Errors
    /// `E_CONTRACT_SIG` if what the node sent is not the former owner's.
    pub(crate) fn taken(self, contract: &TransferContract, by_receiver: Signature) -> Result<TakenOver> {
        let Self { lease, token, by_owner } = self;
        contract.verify(contract.from, &by_owner)?;
        let signed = TransferSigned { contract: *contract, by_owner, by_receiver: Some(by_receiver) };
        Ok(TakenOver { leased: Leased { lease, token }, signed })
    }
}

/// A lease that was taken over.
#[derive(Clone, Debug)]
pub struct TakenOver {
    /// The lease, which is the caller's now, and the capability that opens it.
    pub leased: Leased,
    /// The contract with both signatures, which were verified.
    pub signed: TransferSigned,
}

#[cfg(test)]
mod tests {
    use caps::id::{LeaseId, RegionId};
    use caps::key::SigningKey;
    use caps::time::Micros;
    use caps::wire::row::TransferState;

    use super::*;

    const CLUSTER: ClusterEpoch = ClusterEpoch([1; 16]);

    fn proposal() -> TransferProposal {
        let (from, to) = (SigningKey::from_seed(&[4; 32]), SigningKey::from_seed(&[5; 32]));
        let contract = TransferContract {
            cluster: CLUSTER,
            transfer: TransferId([7; 16]),
            lease: LeaseId([2; 16]),
            region: RegionId([3; 16]),
            from: from.public(),
            to: to.public(),
            ttl: Micros(9),
        };
        let transfer = TransferRow {
            id: contract.transfer,
            lease: contract.lease,
            region: contract.region,
            bytes: 4096,
            from: contract.from,
            from_name: None,
            to: contract.to,
            to_name: None,
            ttl: contract.ttl,
            stands_for: Micros(9),
            expires_in: Micros(9),
            state: TransferState::Offered,
            cause: None,
        };
        TransferProposal { transfer, contract, by_owner: contract.sign(&from), by_receiver: None }
    }

    #[test]
    fn a_contract_that_differs_from_its_row_is_not_signed() {
        let good = proposal();
        let (asked, contract) = (good.transfer.id, good.contract);
        good.clone().checked(asked, CLUSTER).unwrap();
        let with = |contract| TransferProposal { contract, ..good.clone() };
        for bad in [
            with(TransferContract { cluster: ClusterEpoch([9; 16]), ..contract }),
            with(TransferContract { transfer: TransferId([9; 16]), ..contract }),
            with(TransferContract { lease: LeaseId([9; 16]), ..contract }),
            with(TransferContract { region: RegionId([9; 16]), ..contract }),
            with(TransferContract { from: contract.to, ..contract }),
            with(TransferContract { to: contract.from, ..contract }),
            with(TransferContract { ttl: Micros(1), ..contract }),
        ] {
            assert_eq!(bad.checked(asked, CLUSTER).unwrap_err().code(), Code::Protocol);
        }
        let forged =
            TransferProposal { by_owner: contract.sign(&SigningKey::from_seed(&[5; 32])), ..good.clone() };
        assert_eq!(forged.checked(asked, CLUSTER).unwrap_err().code(), Code::ContractSignature);
        assert!(good.checked(TransferId([9; 16]), CLUSTER).is_err());
    }
}
