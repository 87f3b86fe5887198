"""What a request can cost at most, what it did cost, and what a grant can pay for.

Rules of this file:

1. A bound is never smaller than what the engine can still produce without asking again (L2).
2. With an exact prompt both counts are known. Without one, prompt and output together fill the
   context window at most: the dearer end of that trade is held.
3. Several prompts, and several answers to one prompt, multiply the bound.
4. Engine time is bounded by the request's deadline, tool calls by what the answer may hold.
   A permit is one, and comes back: a finished request used none.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from enforcement.rules.lots import BalanceKey, Need
from enforcement.rules.money import TokenUsage, ceiling_nanos
from enforcement.rules.policy import OUTPUT_UNITS, BudgetPolicy, HoldMode, PricePolicy, Unit

# Looked up for every call, and an enum's members are slow to find.
(
    _USD,
    _TOKENS,
    _INPUT_TOKENS,
    _OUTPUT_TOKENS,
    _CACHED_TOKENS,
    _REASONING_TOKENS,
    _REQUESTS,
    _GPU_MS,
    _TOOL_CALLS,
    _CONCURRENCY,
) = Unit


class Bound(Struct, frozen=True, gc=False):
    """The most that a request can make an engine process: totals over all its sequences."""

    input_tokens: int
    output_tokens: int
    window_tokens: int | None = None  # prompt unknown: both together are at most this
    gpu_ms: int = 0
    tool_calls: int = 0


class UnboundedError(Exception):
    """Neither the prompt nor the engine's context window is known: nothing bounds the request."""


def bound_of(
    *,
    prompt_tokens: int | None,
    context_window: int | None,
    output_limit: int,
    prompts: int = 1,
    sequences: int = 1,
    gpu_ms: int = 0,
    tool_calls: int = 0,
) -> Bound:
    """The bound of a request whose prompts take `prompt_tokens` in all, if that is known.

    `gpu_ms` is its deadline times the accelerators of its node, `tool_calls` the most that its
    answer may make.

    Raises:
        UnboundedError: it is not known, and the context window is not known either.
    """
    output = output_limit * prompts * sequences
    if prompt_tokens is not None:
        return Bound(prompt_tokens * sequences, output, None, gpu_ms, tool_calls)
    if context_window is None:
        raise UnboundedError
    window = context_window * prompts * sequences
    return Bound(max(window - output, 0), output, window, gpu_ms, tool_calls)


def default_output_limit(
    *, asked: int | None, default: int, prompt_tokens: int | None, context_window: int | None
) -> int:
    """The output limit to write for one sequence: what was asked, within what fits the window."""
    limit = default if asked is None else asked
    if context_window is None:
        return limit
    room = context_window - (prompt_tokens or 0) if asked is None else context_window
    return max(min(limit, room), 1)


def amount_of(unit: Unit, bound: Bound, *, output_tokens: int, price: PricePolicy | None) -> int:
    """What a bound needs in a unit when its output is at most `output_tokens`; rises with it.

    Raises:
        ValueError: dollars without a price.
    """
    if unit is not Unit.USD:
        return _count_of(unit, bound, output_tokens=output_tokens)
    window = bound.window_tokens
    if price is None:
        raise ValueError("an unpriced request has no dollar bound")
    if window is None:
        return ceiling_nanos(
            input_tokens=bound.input_tokens, output_tokens=output_tokens, price=price
        )
    longest = max(window - output_tokens, 0)
    most = ceiling_nanos(input_tokens=longest, output_tokens=output_tokens, price=price)
    return max(most, ceiling_nanos(input_tokens=window, output_tokens=0, price=price))


def _count_of(unit: Unit, bound: Bound, *, output_tokens: int) -> int:
    """What a bound needs in a unit that is counted, not priced."""
    window = bound.window_tokens
    if unit is Unit.TOKENS:
        return bound.input_tokens + output_tokens if window is None else window
    if unit in (Unit.INPUT_TOKENS, Unit.CACHED_TOKENS):
        return bound.input_tokens if window is None else window
    if unit in OUTPUT_UNITS:
        return output_tokens
    if unit is Unit.GPU_MS:
        return bound.gpu_ms
    return bound.tool_calls if unit is Unit.TOOL_CALLS else 1


def needs_of(
    budgets: Sequence[BudgetPolicy],
    balances: Sequence[BalanceKey],
    bound: Bound,
    *,
    price: PricePolicy | None,
    metered_output: int | None = None,
    rated: dict[Unit, int] | None = None,
) -> list[Need]:
    """What a request must hold. `metered_output`: output that metered budgets cover at first.

    Budgets of one unit need the same, which is computed once; `rated` takes it for the caller.
    """
    whole: dict[Unit, int] = {} if rated is None else rated
    needs = []
    for budget, (budget_id, value) in zip(budgets, balances, strict=True):
        unit = budget.unit
        if metered_output is not None and budget.hold_mode is HoldMode.METERED:
            output = min(bound.output_tokens, metered_output)
            amount = amount_of(unit, bound, output_tokens=output, price=price)
        else:
            known = whole.get(unit)
            if known is None:
                output = bound.output_tokens
                known = whole[unit] = amount_of(unit, bound, output_tokens=output, price=price)
            amount = known
        needs.append(Need(budget_id, value, amount))
    return needs


def extension_of(
    budgets: Sequence[BudgetPolicy],
    balances: Sequence[BalanceKey],
    bound: Bound,
    *,
    price: PricePolicy | None,
    covered_output: int,
    more_output: int,
) -> list[Need]:
    """What metered budgets need so that a running request may produce `more_output` tokens."""
    needs = []
    for budget, (budget_id, value) in zip(budgets, balances, strict=True):
        if budget.hold_mode is not HoldMode.METERED or budget.unit not in OUTPUT_UNITS:
            continue
        held = amount_of(budget.unit, bound, output_tokens=covered_output, price=price)
        wanted = amount_of(
            budget.unit, bound, output_tokens=covered_output + more_output, price=price
        )
        needs.append(Need(budget_id, value, max(wanted - held, 0)))
    return needs


def affordable_output(
    budgets: Sequence[BudgetPolicy],
    balances: Sequence[BalanceKey],
    bound: Bound,
    *,
    price: PricePolicy | None,
    granted: Mapping[BalanceKey, int],
) -> int:
    """How much output the granted amounts pay for beside the prompt, over all balances; ≥ 0."""
    least = bound.output_tokens
    for budget, key in zip(budgets, balances, strict=True):
        amount = granted.get(key)
        if amount is not None:
            least = _most_output(budget.unit, bound, price=price, amount=amount, most=least)
    return least


def within_grants(
    budgets: Sequence[BudgetPolicy],
    balances: Sequence[BalanceKey],
    bound: Bound,
    *,
    granted: Mapping[BalanceKey, int],
) -> Bound:
    """The bound with no more engine time and tool calls than were granted for them."""
    gpu_ms, tool_calls = bound.gpu_ms, bound.tool_calls
    for budget, key in zip(budgets, balances, strict=True):
        if budget.unit is Unit.GPU_MS:
            gpu_ms = min(gpu_ms, granted.get(key, gpu_ms))
        elif budget.unit is Unit.TOOL_CALLS:
            tool_calls = min(tool_calls, granted.get(key, tool_calls))
    return replace(bound, gpu_ms=gpu_ms, tool_calls=tool_calls)


def _most_output(
    unit: Unit, bound: Bound, *, price: PricePolicy | None, amount: int, most: int
) -> int:
    """The largest output up to `most` whose amount fits; 0 if not even the prompt does."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if amount_of(unit, bound, output_tokens=middle, price=price) <= amount:
            low = middle
        else:
            high = middle - 1
    return low


class Used(Struct, frozen=True, gc=False):
    """What a finished request used beside its tokens."""

    charge_nanos: int
    requests: int = 1
    gpu_ms: int = 0
    tool_calls: int = 0


def used_of(
    budgets: Sequence[BudgetPolicy],
    balances: Sequence[BalanceKey],
    usage: TokenUsage,
    used: Used,
) -> dict[BalanceKey, int]:
    """What a finished request used of each of its balances."""
    amounts = amounts_used(usage, used)
    return {key: amounts[budget.unit] for budget, key in zip(budgets, balances, strict=True)}


def amounts_used(usage: TokenUsage, used: Used) -> dict[Unit, int]:
    """A finished request in every unit. A permit is lent: none is ever used."""
    input_tokens, output_tokens = usage.input_tokens, usage.output_tokens
    return {
        _USD: used.charge_nanos,
        _TOKENS: input_tokens + output_tokens,
        _INPUT_TOKENS: input_tokens,
        _OUTPUT_TOKENS: output_tokens,
        _CACHED_TOKENS: usage.cached_input_tokens,
        _REASONING_TOKENS: usage.reasoning_tokens,
        _REQUESTS: used.requests,
        _GPU_MS: used.gpu_ms,
        _TOOL_CALLS: used.tool_calls,
        _CONCURRENCY: 0,
    }


def amount_used(unit: Unit, usage: TokenUsage, used: Used) -> int:
    """A finished request in one unit."""
    return amounts_used(usage, used)[unit]


def price_for(
    prices: Iterable[PricePolicy], *, model: str, provider: str = ""
) -> PricePolicy | None:
    """The price of a model: an own rate wins, then an exact name, then the longest prefix.

    The empty prefix is for models that nothing else prices.
    """
    best: PricePolicy | None = None
    best_rank = (False, False, False, -1)
    for price in prices:
        if price.provider and provider and price.provider != provider:
            continue
        exact = price.match == "exact"
        if not (price.model == model if exact else model.startswith(price.model)):
            continue
        rank = (
            price.own and price.model != "",
            bool(price.provider and provider),
            exact,
            len(price.model),
        )
        if rank > best_rank:
            best, best_rank = price, rank
    return best
