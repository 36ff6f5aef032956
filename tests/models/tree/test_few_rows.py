"""The product of few rows is torch's within rounding, is used where it may be, and is missed by nobody where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harness.models.tree import compiled, few_rows_kernel, products

PLAIN = torch.nn.functional.linear


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 64])
@pytest.mark.parametrize(("columns", "width"), [(1, 1), (4, 8), (5, 9), (130, 67)])
def test_few_rows_are_multiplied_as_torch_does(rows: int, columns: int, width: int) -> None:
    """Property: no score moves. Batches, rests of every size and a bias included."""
    generator = torch.Generator().manual_seed(rows)
    x, w, bias = (torch.randn(s, generator=generator) for s in ((1, rows, width), (columns, width), (columns,)))
    with torch.no_grad():
        for added in (None, bias):
            right = PLAIN(x.double(), w.double(), None if added is None else added.double()).float()
            torch.testing.assert_close(products.linear(x, w, added), right, rtol=1e-5, atol=1e-5)


def test_what_is_no_number_stays_none() -> None:
    """Property: broken logits are found, so a product hides none."""
    x = torch.tensor([[1.0, torch.nan], [torch.inf, 1.0], [1.0, 1.0]])
    with torch.no_grad():
        out = products.linear(x, torch.ones(5, 2))
    assert out[0].isnan().all() and out[1].isinf().all() and (out[2] == 2).all()


def test_other_products_are_those_of_torch() -> None:
    """Property: gradients, other types, many rows and weights that lie otherwise go torch's way, with torch's errors."""
    x, w = torch.randn(3, 8), torch.randn(4, 8)
    weight = torch.nn.Parameter(w.clone())
    products.linear(x, weight).sum().backward()
    assert weight.grad is not None
    with torch.no_grad():
        for left, right in [(x.double(), w.double()), (x, torch.randn(8, 4).t()), (torch.randn(999, 8), w)]:
            assert torch.equal(products.linear(left, right), PLAIN(left, right))
        with pytest.raises(RuntimeError):
            products.linear(torch.randn(3, 7), w)


def test_torch_has_its_product_back_whatever_happens() -> None:
    """Property: nothing is left behind by a pass, also one that fails."""

    def fail() -> None:
        with products.few_rows(4, torch.device("cpu")):
            assert (torch.nn.functional.linear is PLAIN) == (few_rows_kernel.kernel() is None)
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert torch.nn.functional.linear is PLAIN


@pytest.mark.parametrize(
    "compiler", [None, "#!/bin/sh\nexit 1\n", '#!/bin/sh\nfor last; do :; done\necho no > "$last"\n']
)
def test_a_machine_that_cannot_compile_goes_on_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], compiler: str | None
) -> None:
    """Property: no compiler, one that fails, or one that writes something else: no kernel, and nothing is said."""
    if compiler is not None:
        (tmp_path / "cc").write_text(compiler)
        (tmp_path / "cc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    assert few_rows_kernel.kernel.__wrapped__() is None
    assert capfd.readouterr() == ("", "")


def test_a_product_that_is_wrong_is_not_used() -> None:
    """Property: what a compiler made is tried out before it is used."""
    assert not few_rows_kernel.is_right(lambda *_: None)


def test_a_product_that_another_put_in_torchs_place_stays_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method that exchanged the product has its own within a pass of few rows, too, and afterwards."""

    def doubled(*arguments: torch.Tensor) -> torch.Tensor:
        return 2 * products._linear(*arguments)

    monkeypatch.setattr(torch.nn.functional, "linear", doubled)
    layer, rows = torch.nn.Linear(8, 4), torch.randn(2, 8)
    with torch.no_grad(), products.few_rows(2, torch.device("cpu")):
        assert torch.equal(layer(rows), doubled(rows, layer.weight, layer.bias))
    assert torch.nn.functional.linear is doubled


def test_a_library_that_others_may_have_written_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Property: what lies in a shared cache runs nobody's code but one's own."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    if few_rows_kernel.kernel.__wrapped__() is None:
        assert few_rows_kernel.kernel() is None  # this machine has none at all
        return
    (library,) = (tmp_path / "kernels").glob("*.so")
    assert library.stat().st_mode & 0o022 == 0
    library.chmod(0o666)
    assert few_rows_kernel.kernel.__wrapped__() is None


def test_a_library_that_was_damaged_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Property: a cache that somebody broke costs a second, not the kernel."""
    if few_rows_kernel.kernel() is None:  # which reads a file of another folder, not the one that is damaged below
        assert few_rows_kernel.kernel.__wrapped__() is None  # this machine has none at all
        return
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    library = compiled._compiled("few_rows", compiled.VECTORS + few_rows_kernel.source(), is_anew=False)
    library.write_text("no library\n")
    assert few_rows_kernel.kernel.__wrapped__() is not None
    assert library.stat().st_size > 1000
