from django.urls import path

from budgets.dashboard import (
    alerts,
    backtest,
    changes,
    explain,
    pricefile,
    prices,
    rerate,
    rules,
    usage,
    views,
)
from budgets.enums import PriceRuleKind

app_name = "budgets"
urlpatterns = [
    path("budgets/", views.budget_list, name="list"),
    path("alerts/", alerts.alerts, name="alerts"),
    path("alerts/seen/", alerts.seen, name="alerts-seen"),
    path("alerts/approvals/<uuid:approval_id>/", alerts.decide, name="approval-decide"),
    path("alerts/firings/<uuid:firing_id>/lift/", alerts.lift, name="firing-lift"),
    path("budgets/export.csv", views.export, name="export"),
    path("budgets/explain/", explain.explain, name="explain"),
    path("budgets/backtest/", backtest.backtest, name="backtest"),
    path("budgets/new/", views.create, name="create"),
    path("budgets/<uuid:budget_id>/edit/", views.edit, name="edit"),
    path("budgets/<uuid:budget_id>/archive/", views.archive, name="archive"),
    path("budgets/<uuid:budget_id>/changes/new/", changes.plan, name="change"),
    path(
        "budgets/<uuid:budget_id>/changes/<uuid:change_id>/cancel/",
        changes.cancel,
        name="change-cancel",
    ),
    path("usage/", usage.explore, name="usage"),
    path("prices/", prices.price_list, name="prices"),
    path("prices/export.csv", prices.export, name="prices-export"),
    path("prices/rerate/", rerate.rerate_calls, name="price-rerate"),
    path("prices/new/", prices.set_rate, name="price-set"),
    path("prices/import/", pricefile.bring, name="price-file"),
    path("prices/aliases/new/", rules.create, {"kind": PriceRuleKind.ALIAS}, name="alias-set"),
    path(
        "prices/discounts/new/",
        rules.create,
        {"kind": PriceRuleKind.DISCOUNT},
        name="discount-set",
    ),
    path("prices/rules/<uuid:rule_id>/end/", rules.end, name="rule-end"),
]
