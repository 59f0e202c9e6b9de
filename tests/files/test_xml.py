"""What is an XML invoice, and what only is XML: one rule, tried on both sides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async._files.xml import Outline, XmlValidator, verdict

SOAP = "http://schemas.xmlsoap.org/soap/envelope/"

RIGHT = [
    "<HDon><DLHDon Id='d'><TTChung><SHDon>1</SHDon></TTChung></DLHDon><DSCKS/></HDon>",
    "<TDiep><TTChung><PBan>2.0.1</PBan></TTChung><DLieu><HDon><DLHDon/></HDon></DLieu></TDiep>",
    "<DLHDon><NDHDon/></DLHDon>",
    "<BTHDLieu><DLBTHop/></BTHDLieu>",
    "<inv:invoice xmlns:inv='http://laphoadon.gdt.gov.vn/2014/09/invoicexml/v1'><inv:invoiceData/></inv:invoice>",
    "<Invoice xmlns='urn:oasis:names:specification:ubl:schema:xsd:Invoice-2'><ID>1</ID></Invoice>",
    "<ubl:CreditNote xmlns:ubl='urn:oasis:names:specification:ubl:schema:xsd:CreditNote-2'/>",
    "<rsm:CrossIndustryInvoice xmlns:rsm='urn:un:unece:uncefact:data:standard:CrossIndustryInvoice:100'/>",
    "<p:FatturaElettronica xmlns:p='http://ivaservizi.agenziaentrate.gov.it/docs/xsd/fatture/v1.2'/>",
    "<ArrayOfInvoice><Invoice/></ArrayOfInvoice>",
    "<invoices><invoice/></invoices>",
    "<default><Invoice/></default>",
    "<Document><Default/></Document>",
    "<Invoice><Errors/><Error>none</Error><Note>the error of last month</Note></Invoice>",
    "<Invoice><Body><Fault>a broken lamp, credited</Fault></Body></Invoice>",
    "<Response><Success>true</Success><Data><HDon/></Data></Response>",
    "<response><error/><data><HDon/></data></response>",
    "<result><errors></errors><error>0</error><Exception>null</Exception><HDon/></result>",
    "<root><status>OK</status><HDon/></root>",
    f"<s:Envelope xmlns:s='{SOAP}'><s:Body><HDon><DLHDon/></HDon></s:Body></s:Envelope>",
    "<data><HDon><DLHDon><NDHDon><Error>1</Error></NDHDon></DLHDon></HDon></data>",
    "<a/>",
    "<?xml version='1.0' encoding='UTF-8'?><!-- c --><?pi x?><HDon/>",
    "<?xml version='1.0' encoding='windows-1252'?><HDon/>",
    "<HóaĐơn><Dòng/></HóaĐơn>",
]

WRONG = [
    "<html><body/></html>",
    "<HTML><BODY/></HTML>",
    "<html xmlns='http://www.w3.org/1999/xhtml'><head><title>Sign in</title></head><body/></html>",
    "<h:html xmlns:h='http://www.w3.org/1999/xhtml'/>",
    "<svg xmlns='http://www.w3.org/2000/svg'/>",
    "<rss/>",
    "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>",
    "<error/>",
    "<Errors><Error/></Errors>",
    "<ErrorResponse xmlns='http://sts.amazonaws.com/doc/2011-06-15/'><Error/></ErrorResponse>",
    "<Fault/>",
    "<f:fault xmlns:f='urn:x'/>",
    "<ServiceException/>",
    "<ows:ExceptionReport xmlns:ows='http://www.opengis.net/ows'/>",
    "<problem xmlns='urn:ietf:rfc:7807'><title>Forbidden</title></problem>",
    "<api-error/>",
    "<ListBucketResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'/>",
    "<OAI-PMH><error code='badVerb'/></OAI-PMH>",
    f"<s:Envelope xmlns:s='{SOAP}'><s:Body><s:Fault><faultstring>no</faultstring></s:Fault></s:Body></s:Envelope>",
    "<e:Envelope xmlns:e='http://www.w3.org/2003/05/soap-envelope'><e:Body><e:Fault><e:Code/></e:Fault></e:Body></e:Envelope>",
    "<response><success>false</success><message>no</message></response>",
    "<Response><IsSuccess>False</IsSuccess></Response>",
    "<response status='error'><message>no</message></response>",
    "<resp stat='fail'/>",
    "<response><error><code>SYS_DEP_503</code></error></response>",
    "<result><status>failed</status></result>",
    "<Map><timestamp>1</timestamp><status>500</status><error>Internal Server Error</error></Map>",
    "<root><Exception>at com.example</Exception></root>",
    "<data><errors><item>x</item></errors></data>",
]


def fault(text: str, *, step: int = 10_000) -> str | None:
    validator, body = XmlValidator(), text.encode("windows-1252" if "windows-1252" in text else "utf-8")
    for at in range(0, len(body), step):
        validator.feed(body[at : at + step])
    return validator.fault(content_length=len(body))


@pytest.mark.parametrize("text", RIGHT)
@pytest.mark.parametrize("step", [1, 10_000])
def test_an_invoice_of_any_kind_is_one(text: str, step: int) -> None:
    """Vietnam's roots, UBL and others, wrapped or not, with fields that only sound like trouble."""
    assert fault(text, step=step) is None


@pytest.mark.parametrize("text", WRONG)
@pytest.mark.parametrize("step", [1, 10_000])
def test_a_page_or_an_error_is_none(text: str, step: int) -> None:
    """Well formed to its end and no invoice; the reason is one short line."""
    said = fault(text, step=step)
    assert said is not None
    assert "not a whole" not in said
    assert len(said) < 120


@given(name=st.from_regex(r"[A-Za-z][A-Za-z0-9]{0,12}", fullmatch=True), upper=st.booleans(), prefix=st.booleans())
def test_the_namespace_and_the_case_of_a_page_do_not_matter(name: str, upper: bool, prefix: bool) -> None:  # noqa: FBT001
    """A sign-in page is one under any prefix; any other root decides by its own name."""
    root = "HTML" if upper else "html"
    text = f"<{name}:{root} xmlns:{name}='urn:x'/>" if prefix else f"<{root} xmlns='urn:{name}'/>"
    assert fault(text) == f"an XML page ({root}) instead of an invoice"


@pytest.mark.parametrize("text", RIGHT)
def test_a_cut_is_never_whole(text: str) -> None:
    """A document that lacks its end is not one, wherever it is cut."""
    body = text.encode()
    for cut in range(len(body) - 1):
        validator = XmlValidator()
        validator.feed(body[:cut])
        assert validator.fault() is not None, body[:cut]


def test_a_long_document_is_judged_by_its_beginning() -> None:
    """What stands far in an envelope decides nothing, and an invoice's own content is not looked at."""
    assert fault("<data>" + "<Line>1</Line>" * 500 + "<error>x</error></data>") is None
    assert fault("<Invoice>" + "<Error>x</Error>" * 500 + "</Invoice>") is None


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"%PDF-1.7", b"<a>", b"<a/><b/>", b"\x00", b"<?xml version='1.0' encoding='x'?><a/>"]
)
def test_what_is_no_xml_is_refused(body: bytes) -> None:
    """Also an encoding that nobody knows is a fault and no exception."""
    validator = XmlValidator()
    validator.feed(body)
    assert "not a whole XML document" in str(validator.fault())


def test_nothing_is_no_reason() -> None:
    """The rule itself, with nothing to judge, says nothing: the parser has said what is wrong."""
    assert verdict([]) is None
    assert verdict([Outline(0, "HDon")]) is None
