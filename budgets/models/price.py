import msgspec
from django.db import models
from django.db.models import F, Q

from budgets.enums import PriceMatch
from controlplane.identity.ids import new_id
from enforcement.rules.policy import PricePolicy, PriceTier, Rates


class PriceVersion(models.Model):
    """A dated rate of a model, in nano-dollars per million tokens of each kind.

    Without organization it belongs to the catalogue. Two versions of the same model never overlap
    in time: exclusion constraint in migration 0002. Rates are never edited; a new version follows.

    `kinds`: rates of kinds of tokens that differ from their whole's, as in `rules.policy.Rates`.
    `variants`: by service tier, whole rates that stand in place of the others. No rate in them is
    negative: constraint in migration 0013.

    `rule` and `basis`: why rates that follow from others are what they are. `evidence`: what rates
    were computed from that were measured.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey(
        "identity.Organization", models.PROTECT, null=True, blank=True, related_name="+"
    )
    provider = models.CharField(max_length=64, blank=True, default="")
    model = models.CharField(max_length=200)
    match = models.CharField(max_length=8, choices=PriceMatch.choices, default=PriceMatch.EXACT)
    input_nanos_per_mtok = models.BigIntegerField(default=0)
    cached_input_nanos_per_mtok = models.BigIntegerField(default=0)
    cache_write_nanos_per_mtok = models.BigIntegerField(default=0)
    output_nanos_per_mtok = models.BigIntegerField(default=0)
    request_nanos = models.BigIntegerField(default=0)
    kinds = models.JSONField(default=dict, blank=True)
    variants = models.JSONField(default=dict, blank=True)
    tiers = models.JSONField(default=list, blank=True)
    valid_from = models.DateTimeField()
    valid_to = models.DateTimeField(null=True, blank=True)
    source = models.CharField(max_length=64)
    source_version = models.CharField(max_length=64, blank=True, default="")
    own = models.BooleanField(default=False)
    rule = models.ForeignKey("budgets.PriceRule", models.PROTECT, null=True, related_name="+")
    basis = models.ForeignKey("self", models.PROTECT, null=True, related_name="+")
    evidence = models.JSONField(default=dict, blank=True)

    class Meta:
        indexes = [models.Index(fields=["provider", "model"], name="price_of_model")]
        constraints = [
            models.CheckConstraint(
                condition=Q(input_nanos_per_mtok__gte=0)
                & Q(cached_input_nanos_per_mtok__gte=0)
                & Q(cache_write_nanos_per_mtok__gte=0)
                & Q(output_nanos_per_mtok__gte=0)
                & Q(request_nanos__gte=0),
                name="price_rates_not_negative",
            ),
            models.CheckConstraint(
                condition=Q(valid_to__isnull=True) | Q(valid_to__gt=F("valid_from")),
                name="price_validity_not_empty",
            ),
            models.CheckConstraint(
                condition=Q(own=True, organization__isnull=False)
                | Q(own=False, organization__isnull=True),
                name="price_own_has_organization",
            ),
            models.CheckConstraint(
                condition=Q(match__in=PriceMatch.values), name="price_match_known"
            ),
            models.CheckConstraint(
                condition=Q(rule__isnull=True, basis__isnull=True)
                | Q(rule__isnull=False, basis__isnull=False, own=True),
                name="price_of_rule_names_its_basis",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.provider}:{self.model} from {self.valid_from:%Y-%m-%d}"

    @property
    def rates(self) -> Rates:
        return Rates(
            input=self.input_nanos_per_mtok,
            cached_input=self.cached_input_nanos_per_mtok,
            cache_write=self.cache_write_nanos_per_mtok,
            output=self.output_nanos_per_mtok,
            request=self.request_nanos,
            **self.kinds,
        )

    def to_policy(self) -> PricePolicy:
        return PricePolicy(
            id=str(self.id),
            model=self.model,
            rates=self.rates,
            provider=self.provider,
            match="prefix" if self.match == PriceMatch.PREFIX else "exact",
            tiers=msgspec.convert(self.tiers, list[PriceTier]),
            own=self.own,
            variants=msgspec.convert(self.variants, dict[str, Rates]),
        )
