from django.urls import path
from rest_framework.routers import SimpleRouter

from budgets.api import views
from budgets.api.alerts import ApprovalViews, FiringViews, NotificationViews
from budgets.api.backtest import BacktestView
from budgets.api.delegations import DelegationViews
from budgets.api.explain import ExplainView
from budgets.api.metrics import BudgetMetricsView
from budgets.api.priceimports import PriceImportViews
from budgets.api.pricerules import PriceRuleViews
from budgets.api.rerate import RerateViews
from budgets.api.usage import UsageExportView, UsageQueryView

router = SimpleRouter(trailing_slash=False)
router.register("budgets", views.BudgetViews, basename="budget")
router.register("balances", views.BalanceViews, basename="balance")
router.register("leases", views.LeaseViews, basename="lease")
router.register("transfers", views.TransferViews, basename="transfer")
router.register("price-versions", views.PriceVersionViews, basename="price-version")
router.register("price-rules", PriceRuleViews, basename="price-rule")
router.register("rejected-events", views.RejectedEventViews, basename="rejected-event")
router.register("ratings", views.RatingViews, basename="rating")
router.register("usage-events", views.UsageEventViews, basename="usage-event")
router.register("refusals", views.RefusalViews, basename="refusal")
router.register("delegations", DelegationViews, basename="delegation")
router.register("firings", FiringViews, basename="firing")
router.register("approvals", ApprovalViews, basename="approval")
router.register("notifications", NotificationViews, basename="notification")

urlpatterns = [
    path("budgets/backtest", BacktestView.as_view(), name="budget-backtest"),
    path("budgets/explain", ExplainView.as_view(), name="budget-explain"),
    path("budgets/metrics", BudgetMetricsView.as_view(), name="budget-metrics"),
    path(
        "usage/summary", views.UsageSummaryViews.as_view({"get": "summary"}), name="usage-summary"
    ),
    path("usage/export", UsageExportView.as_view(), name="usage-export"),
    path("usage/query", UsageQueryView.as_view(), name="usage-query"),
    path("usage/rerate", RerateViews.as_view({"post": "rerate"}), name="usage-rerate"),
    path(
        "price-versions/import",
        PriceImportViews.as_view({"post": "bring"}),
        name="price-version-import",
    ),
    *router.urls,
]
