"""Price versions over the API: rates are decimal strings of dollars for a million tokens."""

from typing import Any

from rest_framework import serializers

from budgets.api.fields import RateField
from budgets.enums import PriceMatch
from budgets.models import PriceVersion
from controlplane.api import StrictSerializer
from enforcement.rules.policy import OPTIONAL_KINDS, PriceTier, Rates


class RatesSerializer(StrictSerializer):
    """Rates of all kinds. One that is left out is that of the kind which it is a part of."""

    input_per_mtok = RateField()
    cached_input_per_mtok = RateField(required=False)
    cache_write_per_mtok = RateField(required=False)
    output_per_mtok = RateField()
    per_request = RateField(required=False)
    cache_write_long_per_mtok = RateField(required=False)
    input_audio_per_mtok = RateField(required=False)
    input_image_per_mtok = RateField(required=False)
    output_audio_per_mtok = RateField(required=False)
    reasoning_per_mtok = RateField(required=False)


class VariantSerializer(RatesSerializer):
    """Rates that replace the others when the provider says that it served this tier."""

    service_tier = serializers.CharField(max_length=32)


class TierSerializer(RatesSerializer):
    """Rates that replace the base rates when the input is longer than a number of tokens."""

    above_input_tokens = serializers.IntegerField(min_value=1)
    variants = VariantSerializer(many=True, default=list)


class PriceVersionSerializer(serializers.ModelSerializer[PriceVersion]):
    """Rates are decimal strings of dollars for a million tokens."""

    input_per_mtok = RateField(source="input_nanos_per_mtok")
    cached_input_per_mtok = RateField(source="cached_input_nanos_per_mtok")
    cache_write_per_mtok = RateField(source="cache_write_nanos_per_mtok")
    output_per_mtok = RateField(source="output_nanos_per_mtok")
    per_request = RateField(source="request_nanos")
    cache_write_long_per_mtok = RateField(source="rates.cache_write_long", allow_null=True)
    input_audio_per_mtok = RateField(source="rates.input_audio", allow_null=True)
    input_image_per_mtok = RateField(source="rates.input_image", allow_null=True)
    output_audio_per_mtok = RateField(source="rates.output_audio", allow_null=True)
    reasoning_per_mtok = RateField(source="rates.reasoning", allow_null=True)
    tiers = serializers.SerializerMethodField()
    variants = serializers.SerializerMethodField()

    class Meta:
        model = PriceVersion
        fields = [
            "id",
            "provider",
            "model",
            "match",
            "input_per_mtok",
            "cached_input_per_mtok",
            "cache_write_per_mtok",
            "output_per_mtok",
            "per_request",
            "cache_write_long_per_mtok",
            "input_audio_per_mtok",
            "input_image_per_mtok",
            "output_audio_per_mtok",
            "reasoning_per_mtok",
            "tiers",
            "variants",
            "valid_from",
            "valid_to",
            "source",
            "source_version",
            "own",
            "rule",
            "basis",
            "evidence",
        ]
        read_only_fields = fields

    def get_tiers(self, price: PriceVersion) -> list[dict[str, Any]]:
        return [
            {
                "above_input_tokens": tier.above_input_tokens,
                **_rates_out(tier.rates),
                "variants": _variants_out(tier.variants),
            }
            for tier in price.to_policy().tiers
        ]

    def get_variants(self, price: PriceVersion) -> list[dict[str, Any]]:
        return _variants_out(price.to_policy().variants)


class NewPriceSerializer(RatesSerializer):
    """An own rate. Cached and cache-written input cost what input costs, unless told otherwise."""

    model = serializers.CharField(max_length=200)
    provider = serializers.CharField(max_length=64, default="", allow_blank=True)
    match = serializers.ChoiceField(choices=PriceMatch.choices, default=PriceMatch.EXACT)
    tiers = TierSerializer(many=True, default=list)
    variants = VariantSerializer(many=True, default=list)
    valid_from = serializers.DateTimeField(required=False)
    reason = serializers.CharField(max_length=500, default="", allow_blank=True)

    def to_arguments(self) -> dict[str, Any]:
        data = self.validated_data
        return {
            "model": data["model"],
            "provider": data["provider"],
            "match": PriceMatch(data["match"]),
            "rates": _rates_in(data),
            "tiers": [
                PriceTier(
                    above_input_tokens=tier["above_input_tokens"],
                    rates=_rates_in(tier),
                    variants=_variants_in(tier["variants"]),
                )
                for tier in data["tiers"]
            ],
            "variants": _variants_in(data["variants"]),
            "valid_from": data.get("valid_from"),
            "reason": data["reason"],
        }


def _rates_in(data: dict[str, Any]) -> Rates:
    plain = data["input_per_mtok"]
    return Rates(
        input=plain,
        cached_input=data.get("cached_input_per_mtok", plain),
        cache_write=data.get("cache_write_per_mtok", plain),
        output=data["output_per_mtok"],
        request=data.get("per_request", 0),
        **{kind: data.get(f"{kind}_per_mtok") for kind in OPTIONAL_KINDS},
    )


def _variants_in(data: list[dict[str, Any]]) -> dict[str, Rates]:
    return {one["service_tier"]: _rates_in(one) for one in data}


def _variants_out(variants: dict[str, Rates]) -> list[dict[str, str]]:
    return [{"service_tier": tier, **_rates_out(rates)} for tier, rates in variants.items()]


def _rates_out(rates: Rates) -> dict[str, str]:
    show = RateField().to_representation
    return {
        "input_per_mtok": show(rates.input),
        "cached_input_per_mtok": show(rates.cached_input),
        "cache_write_per_mtok": show(rates.cache_write),
        "output_per_mtok": show(rates.output),
        "per_request": show(rates.request),
        **{f"{kind}_per_mtok": show(rate) for kind, rate in rates.own_kinds.items()},
    }
