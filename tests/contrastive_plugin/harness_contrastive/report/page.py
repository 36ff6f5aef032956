"""A page of a text whose tokens are coloured by what the contrast makes of them."""

from harness import pages
from harness.methods.loglikelihoods import token_loglikelihoods
from harness.models.causal import CausalLM
from harness.models.token_bytes import token_bytes
from harness_contrastive.contrast import LEFT_OUT

TEMPLATE = """{% extends "page" %}{% block body %}
<p>{{ model }}: <span class="more">more likely</span>, <span class="less">less likely</span> and
<span class="gone">left out</span> by the contrast. Point at a token for its log-probabilities.</p>
<p class="text">{% for token in tokens %}
<span class="{{ token.kind }}" title="{{ token.nats }}">{{ token.text }}</span>
{%- endfor %}</p>
{% endblock %}"""
STYLE = """.text { white-space: pre-wrap; }
.more { background: #0a04; } .less { background: #a004; } .gone { text-decoration: line-through; }"""


def page(plain: CausalLM, contrastive: CausalLM, text: str, *, model: str) -> str:
    """Return one HTML file of what both LMs make of ``text``; ``model`` is what people call theirs."""
    ids, spelling = plain.tokenizer.encode(text, add_special_tokens=False), token_bytes(plain.tokenizer)
    [before], [after] = (token_loglikelihoods(lm, [ids]) for lm in (plain, contrastive))
    tokens = [
        {
            "text": pages.readable(spelling[token].decode(errors="replace"), 200),
            "kind": "gone" if now < LEFT_OUT / 2 else "more" if now > was else "less",
            "nats": f"{was:.2f} nats before, {now:.2f} by the contrast",
        }
        for token, was, now in zip(ids, before, after, strict=True)
    ]
    return pages.render(TEMPLATE, title="Contrast of layers", style=STYLE, tokens=tokens, model=model)
