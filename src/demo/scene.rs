//! The scenes of the demo: events at the tills, and the end of each sale.

use std::sync::Arc;

use super::faults::{AnswerHold, BackendFault, FaultPlan};
use super::till::{Purchase, Scan, ScreenMessage, ShopNetwork};

/// The event of a sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scene {
    /// No fault.
    Ordinary,
    /// The shop's network loses the answer; the till asks again.
    ShopLosesAnswer,
    /// The cashier clicks twice.
    DoubleClick,
    /// The backend is slow; the till gives up waiting and asks again.
    TillGivesUp,
    /// The backend says it is busy and does nothing; the till asks again.
    BackendBusy,
    /// The backend's answer is lost before it reaches the next hop; the till asks again.
    BackendLosesAnswer,
    /// The backend executes and then answers 500; the till asks again.
    BackendFails,
    /// A second sale presents a voucher that is spent.
    SpentVoucher,
}

/// The goods sold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Goods {
    /// Vouchers, which the backend redeems once.
    Vouchers,
    /// Points, which the backend gives as often as it is asked.
    Points,
}

impl Goods {
    /// Scenes played with the goods, in order.
    pub(super) const fn scenes(self) -> &'static [Scene] {
        match self {
            Self::Vouchers => &[
                Scene::Ordinary,
                Scene::ShopLosesAnswer,
                Scene::DoubleClick,
                Scene::TillGivesUp,
                Scene::BackendBusy,
                Scene::SpentVoucher,
                Scene::BackendLosesAnswer,
                Scene::BackendFails,
            ],
            Self::Points => &[
                Scene::Ordinary,
                Scene::ShopLosesAnswer,
                Scene::DoubleClick,
                Scene::TillGivesUp,
                Scene::BackendLosesAnswer,
            ],
        }
    }
}

impl Scene {
    /// Printed title of the scene.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Ordinary => "nothing goes wrong",
            Self::ShopLosesAnswer => "the shop's network loses the answer",
            Self::DoubleClick => "an impatient double click",
            Self::TillGivesUp => "slow backend, the till gives up and retries",
            Self::BackendBusy => "the backend is busy (429), the till retries",
            Self::SpentVoucher => "another customer shows the same voucher",
            Self::BackendLosesAnswer => "the backend's own answer is lost",
            Self::BackendFails => "the backend executes, then answers 500",
        }
    }
}

/// A sale and the messages shown by its till.
#[derive(Debug)]
pub(super) struct Sale {
    /// Receipt number of the sale.
    pub(super) receipt: String,
    /// Messages on the screen, request by request.
    pub(super) readings: Vec<ScreenMessage>,
    /// The scan, for a till that asks again once the outcome is settled.
    pub(super) scan: Scan,
    /// The decision about a lost answer.
    pub(super) settled: Option<SettledBy>,
}

/// The way in which a lost answer was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SettledBy {
    /// The gateway asked the backend.
    Probe,
    /// The gateway undid the call.
    Reversal,
    /// An operator looked into the books.
    Operator,
}

impl SettledBy {
    /// Words of the story.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Probe => "settled by asking the backend",
            Self::Reversal => "settled by undoing the lost call",
            Self::Operator => "settled by an operator",
        }
    }
}

impl Sale {
    fn new(receipt: String, readings: Vec<ScreenMessage>, scan: Scan) -> Self {
        let settled = readings.contains(&ScreenMessage::Recovered).then_some(SettledBy::Probe);
        Self { receipt, readings, scan, settled }
    }

    /// Reports a sale whose till was left without knowledge.
    pub(super) fn is_unknown(&self) -> bool {
        self.readings.last() == Some(&ScreenMessage::Unknown)
    }
}

/// Plays a scene at three tills concurrently.
pub(super) async fn play(
    goods: Goods,
    scene: Scene,
    shop: &Arc<ShopNetwork>,
    plan: &FaultPlan,
) -> Vec<Sale> {
    let (one, two, three) = tokio::join!(
        play_at_till(goods, scene, 1, shop, plan),
        play_at_till(goods, scene, 2, shop, plan),
        play_at_till(goods, scene, 3, shop, plan),
    );
    [one, two, three].into_iter().flatten().collect()
}

async fn play_at_till(
    goods: Goods,
    scene: Scene,
    till: usize,
    shop: &ShopNetwork,
    plan: &FaultPlan,
) -> Vec<Sale> {
    let receipt = format!("{goods:?}-{scene:?}-{till}");
    let what = match goods {
        Goods::Vouchers => Purchase::Redeem(format!("rsg:{scene:?}-{till}")),
        Goods::Points => Purchase::Award(format!("member-{till}")),
    };
    let scan = Scan { key: uuid::Uuid::new_v4().to_string(), sale: receipt.clone(), what };
    let fault = |fault| plan.at_backend(&receipt, fault);
    let readings = match scene {
        Scene::Ordinary | Scene::SpentVoucher => shop.scan(&scan).await,
        Scene::ShopLosesAnswer => {
            plan.in_shop(&receipt);
            shop.scan(&scan).await
        }
        Scene::DoubleClick => {
            let hold = AnswerHold::default();
            fault(BackendFault::AnswerHeld(hold.clone()));
            shop.scan_twice(&scan, &hold).await
        }
        Scene::TillGivesUp => {
            let hold = AnswerHold::default();
            fault(BackendFault::AnswerHeld(hold.clone()));
            shop.scan_impatiently(&scan, &hold).await
        }
        Scene::BackendBusy => {
            fault(BackendFault::Busy);
            shop.scan(&scan).await
        }
        Scene::BackendLosesAnswer => {
            fault(BackendFault::AnswerLost);
            shop.scan(&scan).await
        }
        Scene::BackendFails => {
            fault(BackendFault::FailsAfterwards);
            shop.scan(&scan).await
        }
    };
    let mut sales = vec![Sale::new(receipt.clone(), readings, scan.clone())];
    if scene == Scene::SpentVoucher {
        let sale = format!("{receipt}-copy");
        let key = uuid::Uuid::new_v4().to_string();
        let scan = Scan { key, sale: sale.clone(), what: scan.what };
        let readings = shop.scan(&scan).await;
        sales.push(Sale::new(sale, readings, scan));
    }
    sales
}
