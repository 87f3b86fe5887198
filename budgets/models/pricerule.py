from django.db import models
from django.db.models import F, Q

from budgets.enums import PriceMatch, PriceRuleKind
from controlplane.identity.ids import new_id


class PriceRule(models.Model):
    """How an organization's rates of some models follow from other rates. Only ended, never edited.

    `alias`: requests for `model` cost what `target_model` costs; the empty prefix is every model
    that nothing else prices. `discount`: catalogue rates of `model` cost `off_per_mille` less. Two
    rules of a kind for the same name never overlap in time: exclusion constraint in migration 0017.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organization = models.ForeignKey("identity.Organization", models.PROTECT, related_name="+")
    kind = models.CharField(max_length=8, choices=PriceRuleKind.choices)
    provider = models.CharField(max_length=64, blank=True, default="")
    model = models.CharField(max_length=200, blank=True, default="")
    match = models.CharField(max_length=8, choices=PriceMatch.choices, default=PriceMatch.EXACT)
    target_provider = models.CharField(max_length=64, blank=True, default="")
    target_model = models.CharField(max_length=200, blank=True, default="")
    off_per_mille = models.IntegerField(default=0)
    valid_from = models.DateTimeField()
    valid_to = models.DateTimeField(null=True, blank=True)
    reason = models.CharField(max_length=500, blank=True, default="")

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(
                    kind=PriceRuleKind.DISCOUNT,
                    off_per_mille__gt=0,
                    off_per_mille__lt=1000,
                    target_model="",
                )
                | (Q(kind=PriceRuleKind.ALIAS, off_per_mille=0) & ~Q(target_model="")),
                name="price_rule_says_one_thing",
            ),
            models.CheckConstraint(
                condition=~Q(model="") | Q(match=PriceMatch.PREFIX), name="price_rule_of_a_name"
            ),
            models.CheckConstraint(
                condition=Q(match__in=PriceMatch.values), name="price_rule_match_known"
            ),
            models.CheckConstraint(
                condition=Q(valid_to__isnull=True) | Q(valid_to__gte=F("valid_from")),
                name="price_rule_validity_in_order",
            ),
        ]

    def __str__(self) -> str:
        name = f"{self.provider}:" if self.provider else ""
        name += f"{self.model}{'*' if self.match == PriceMatch.PREFIX else ''}"
        if self.kind == PriceRuleKind.DISCOUNT:
            whole, tenth = divmod(self.off_per_mille, 10)
            return f"{name} {whole}{f'.{tenth}' if tenth else ''} % off"
        target = f"{self.target_provider}:" if self.target_provider else ""
        return f"{name} like {target}{self.target_model}"
