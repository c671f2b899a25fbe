"""Tool reliability: executed tool calls that succeed over all tool calls proposed, as the harness reported them."""

from melete.bench.metric import Ratio

METRIC = Ratio(
    title="tool reliability",
    unit="share",
    better="higher",
    order=2,
    note="Reported by the harness (tool_calls, tool_calls_ok): the gateway does not see what tools answer.",
    top=lambda columns: columns.said("tool_calls_ok"),
    bottom=lambda columns: columns.said("tool_calls"),
    rate=True,
)
