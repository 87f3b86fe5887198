from django.urls import path

from enforcement.dashboard import (
    agent_views,
    bills,
    efficiency,
    exposure,
    measuring,
    node_page,
    node_views,
    orders,
    reconciliation,
)

app_name = "enforcement"
urlpatterns = [
    path("agents/", agent_views.agent_list, name="agents"),
    path("agents/export.csv", agent_views.export, name="agents-export"),
    path("agents/new/", agent_views.create, name="agent-create"),
    path("agents/<uuid:agent_id>/", agent_views.detail, name="agent"),
    path("agents/<uuid:agent_id>/edit/", agent_views.edit, name="agent-edit"),
    path("agents/<uuid:agent_id>/retire/", agent_views.retire, name="agent-retire"),
    path("agents/<uuid:agent_id>/keys/", agent_views.key_issue, name="key-issue"),
    path(
        "agents/<uuid:agent_id>/keys/<uuid:key_id>/revoke/",
        agent_views.key_revoke,
        name="key-revoke",
    ),
    path("agents/<uuid:agent_id>/<slug:kind>/", orders.intervene, name="intervene"),
    path("orders/<uuid:order_id>/", orders.receipt, name="receipt"),
    path("budgets/<uuid:budget_id>/", exposure.budget, name="budget"),
    path("nodes/", node_views.node_list, name="nodes"),
    path("nodes/<uuid:node_id>/", node_page.detail, name="node"),
    path("nodes/<uuid:node_id>/costs/new/", node_page.cost, name="node-cost"),
    path("nodes/<uuid:node_id>/<slug:verb>/", node_page.state, name="node-state"),
    path("nodes/export.csv", node_views.export, name="nodes-export"),
    path("prices/measure/", measuring.measure_rates, name="price-measure"),
    path("efficiency/", efficiency.listing, name="efficiency"),
    path("efficiency/export.csv", efficiency.export, name="efficiency-export"),
    path("reconciliation/", reconciliation.listing, name="reconciliation"),
    path("reconciliation/bills/new/", bills.import_file, name="bill-import"),
    path("reconciliation/bills/enter/", bills.enter, name="bill-enter"),
    path("reconciliation/export.csv", reconciliation.export, name="reconciliation-export"),
    path("sidecars/<uuid:sidecar_id>/revoke/", node_views.revoke, name="sidecar-revoke"),
    path("sidecars/new/", node_views.enrol, name="sidecar-enrol"),
]
