"""OpenAI's API as its own client and Hugging Face's speak it, on each engine."""

import base64
import json
import struct

import huggingface_hub
import openai
import pytest
from huggingface_hub import InferenceClient

import zoo
from hfserve.tasks.examples import png
from server import Server, assert_error

pytestmark = pytest.mark.once

ASKED = [{"role": "user", "content": "Is it good?"}]
SURE = {"temperature": 0, "max_tokens": 12}


@pytest.fixture(scope="module")
def writer(engine, tmp_path_factory):
    model = zoo.named("text-generation-llama", tmp_path_factory.mktemp("models") / "chatty")
    with Server(model, engine=engine) as server:
        yield server


@pytest.fixture(scope="module")
def embedder(engine, tmp_path_factory):
    model = zoo.named("feature-extraction-sentences", tmp_path_factory.mktemp("models") / "vectors")
    with Server(model, engine=engine, HF_TASK="feature-extraction") as server:
        yield server


@pytest.fixture(scope="module")
def seer(engine, tmp_path_factory):
    model = zoo.named("image-text-to-text-qwen2-vl", tmp_path_factory.mktemp("models") / "seeing")
    with Server(model, engine=engine, HF_TASK="image-text-to-text") as server:
        yield server


@pytest.fixture
def client(writer):
    with openai.OpenAI(base_url=f"{writer.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def own(server, prompt, **parameters):
    """The same text by the task's own request."""
    told = {"do_sample": False, "max_new_tokens": 12, "return_full_text": False, **parameters}
    return server.post(json={"inputs": prompt, "parameters": told}).json()[0]["generated_text"]


def test_models_are_listed(client):
    (model,) = client.models.list()
    assert model.id == "chatty" and client.models.retrieve("chatty").object == "model"
    with pytest.raises(openai.NotFoundError, match="there is chatty"):
        client.models.retrieve("another/model")


def test_the_document_has_the_addresses_that_the_model_has(writer, seer, embedder, demo):
    writes = {"/v1/chat/completions", "/v1/completions"}
    for server, paths in ((writer, writes), (seer, writes), (embedder, {"/v1/embeddings"}), (demo, set())):
        document = server.client.get("/openapi.json").json()
        assert {path for path in document["paths"] if path.startswith("/v1/")} == paths
        if paths == writes:
            assert "stream_options" in document["components"]["schemas"]["OpenAIChatCompletions"]["properties"]


def test_a_chat_is_answered(client, writer):
    answer = client.chat.completions.create(model="chatty", messages=ASKED, **SURE)
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content == own(writer, ASKED, continue_final_message=False)
    assert choice.finish_reason in {"length", "stop"}
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.object == "chat.completion" and answer.model == "chatty" and answer.id.startswith("chatcmpl-")


def test_a_chat_streams_with_its_usage(client):
    whole = client.chat.completions.create(model="chatty", messages=ASKED, **SURE)
    chunks = list(client.chat.completions.create(
        model="chatty", messages=ASKED, stream=True, stream_options={"include_usage": True}, **SURE
    ))  # fmt: skip
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(each.choices[0].delta.content or "" for each in chunks[:-1]) == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert len({each.id for each in chunks}) == 1


def test_several_choices_have_seeds_of_their_own(client):
    asked = {"model": "chatty", "messages": ASKED, "n": 3, "seed": 5, "temperature": 1.5, "max_tokens": 12}
    answer = client.chat.completions.create(**asked)
    texts = [choice.message.content for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == [0, 1, 2] and len(set(texts)) == 3
    streamed = ["", "", ""]
    for chunk in client.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts
    assert answer.usage.prompt_tokens < 40, "the prompt counts once"


def test_probabilities_are_given(client):
    answer = client.chat.completions.create(
        model="chatty", messages=ASKED, logprobs=True, top_logprobs=3, **{**SURE, "max_tokens": 4}
    )
    content = answer.choices[0].logprobs.content
    assert len(content) == 4 and all(len(each.top_logprobs) == 3 for each in content)
    assert all(each.logprob == max(top.logprob for top in each.top_logprobs) for each in content)
    answer = client.completions.create(model="chatty", prompt="a", logprobs=2, **{**SURE, "max_tokens": 4})
    found = answer.choices[0].logprobs
    assert len(found.tokens) == len(found.token_logprobs) == len(found.top_logprobs) == 4


def test_tokens_are_penalized_and_favoured(client, writer):
    asked = {"model": "chatty", "messages": ASKED, **SURE}
    plain, varied = (
        writer.client.post("/v1/chat/completions", json={**asked, "logprobs": True, **more}).json()["choices"][0]
        for more in ({}, {"frequency_penalty": 2, "presence_penalty": 2})
    )
    assert plain != varied
    favoured = client.chat.completions.create(**asked, logit_bias={"40": 100})
    assert (
        favoured.choices[0].message.content
        == client.completions.create(model="chatty", prompt="x", logit_bias={"40": 100}, **SURE).choices[0].text
    )
    with pytest.raises(openai.UnprocessableEntityError, match="parameters do not go together"):
        client.chat.completions.create(**asked, logit_bias={"1000000": 5})


def test_prompts_are_completed(client, writer):
    answer = client.completions.create(model="chatty", prompt=["Paris is", "a"], **SURE)
    assert [choice.text for choice in answer.choices] == [own(writer, "Paris is"), own(writer, "a")]
    echoed = client.completions.create(model="chatty", prompt="Paris is", echo=True, stream=True, **SURE)
    assert "".join(each.choices[0].text for each in echoed) == "Paris is" + answer.choices[0].text


def test_a_stop_string_is_left_out_of_the_text(client):
    text = client.completions.create(model="chatty", prompt="Paris is", **{**SURE, "max_tokens": 40}).choices[0].text
    stop = text[6:8]
    asked = {"model": "chatty", "prompt": "Paris is", "stop": [stop, "never there"], **SURE, "max_tokens": 40}
    (choice,) = client.completions.create(**asked).choices
    assert choice.finish_reason == "stop" and choice.text == text[: text.find(stop)]
    chunks = list(client.completions.create(**asked, stream=True))
    assert "".join(each.choices[0].text for each in chunks) == choice.text
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_the_same_bodies_are_taken_at_invocations(client, writer):
    chat = writer.post(json={"messages": ASKED, **SURE}).json()
    assert chat["object"] == "chat.completion"
    with writer.client.stream("POST", "/invocations", json={"messages": ASKED, **SURE, "stream": True}) as reply:
        lines = [line for line in reply.read().decode().split("\n\n") if line]
    assert reply.headers["content-type"] == "text/event-stream" and lines[-1] == "data: [DONE]"
    text = "".join(
        choice["delta"].get("content", "")
        for line in lines[:-1]
        for choice in json.loads(line.removeprefix("data: "))["choices"]
    )
    assert text == chat["choices"][0]["message"]["content"]
    assert writer.post(json={"prompt": "a", **SURE}).json()["object"] == "text_completion"


def test_a_chat_shows_pictures(seer):
    shown = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png()}"}}
    words = [{"type": "text", "text": "What is it?"}]
    with openai.OpenAI(base_url=f"{seer.url}/v1", api_key="none", max_retries=0) as client:

        def asked(content, **more):
            messages = [{"role": "user", "content": content}]
            return client.chat.completions.create(model="seeing", messages=messages, **SURE, **more)

        answer, blind = asked([shown, *words]), asked(words)
        text = answer.choices[0].message.content
        assert text != blind.choices[0].message.content and answer.usage.prompt_tokens > blind.usage.prompt_tokens
        chat = [{"role": "user", "content": [{"type": "image", "image": png()}, *words]}]
        assert text == own(seer, chat)
        assert "".join(each.choices[0].delta.content or "" for each in asked([shown, *words], stream=True)) == text
        tokens = asked([shown, *words], logprobs=True, top_logprobs=2).choices[0].logprobs.content
        assert "".join(each.token for each in tokens) == text and len(tokens[0].top_logprobs) == 2
        with pytest.raises(openai.UnprocessableEntityError, match="HFSERVE_ALLOW_URLS"):
            asked([{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}, *words])


def test_what_is_not_taken_is_told_in_words(client, writer):
    for wrong, word in (
        ({"messages": []}, "messages"), ({"foo": 1}, "foo"), ({"temperature": 9}, "temperature"),
        ({"frequency_penalty": 3.0}, "frequency_penalty"), ({"logit_bias": {"no": 1}}, "logit_bias"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"), ({"n": 0}, "n:"),
    ):  # fmt: skip
        reply = writer.client.post("/v1/chat/completions", json={"messages": ASKED, **wrong})
        assert_error(reply, 422, words=[word])
    with pytest.raises(openai.UnprocessableEntityError, match="top_p"):
        client.completions.create(model="chatty", prompt="a", top_p=7)
    with pytest.raises(openai.NotFoundError, match="text-generation"):
        client.embeddings.create(model="chatty", input="a")
    assert_error(writer.client.get("/v1/completions"), 405)
    assert_error(writer.client.post("/v1/other"), 404)


def test_tools_reach_the_template(client):
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
    plain = client.chat.completions.create(model="chatty", messages=ASKED, **SURE)
    told = client.chat.completions.create(model="chatty", messages=ASKED, tools=tools, **SURE)
    assert told.usage.prompt_tokens >= plain.usage.prompt_tokens
    none = client.chat.completions.create(model="chatty", messages=ASKED, tools=tools, tool_choice="none", **SURE)
    assert none.usage.prompt_tokens == plain.usage.prompt_tokens


def test_a_model_of_another_task_has_no_chat(demo):
    reply = demo.client.post("/v1/chat/completions", json={"messages": ASKED})
    assert_error(reply, 404, words=["text-classification", "/invocations"])


def test_texts_are_embedded(embedder):
    with openai.OpenAI(base_url=f"{embedder.url}/v1", api_key="none", max_retries=0) as client:
        answer = client.embeddings.create(model="vectors", input=["good food", "a"], encoding_format="float")
        wanted = embedder.post(json={"inputs": ["good food", "a"]}).json()
        assert [each.embedding for each in answer.data] == wanted
        assert answer.usage.prompt_tokens == answer.usage.total_tokens > 2
        packed = embedder.client.post("/v1/embeddings", json={"input": "a", "encoding_format": "base64"}).json()
        raw = base64.b64decode(packed["data"][0]["embedding"])
        assert list(struct.unpack(f"<{len(raw) // 4}f", raw)) == pytest.approx(wanted[1], abs=1e-6)
        assert client.embeddings.create(model="vectors", input="a").data[0].embedding == pytest.approx(wanted[1])
        with pytest.raises(openai.UnprocessableEntityError, match="dimensions"):
            client.embeddings.create(model="vectors", input="a", dimensions=3)


@pytest.fixture
def hugging_face(monkeypatch):
    """Its client, which also takes what is on this machine for the Hub when it is told to keep away from that."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return lambda server: InferenceClient(base_url=server.url, token="none")


def test_hugging_face_s_client_chats_and_writes(writer, hugging_face):
    client = hugging_face(writer)
    answer = client.chat_completion(ASKED, max_tokens=12, temperature=0)
    chunks = client.chat_completion(ASKED, max_tokens=12, temperature=0, stream=True)
    assert "".join(each.choices[0].delta.content or "" for each in chunks) == answer.choices[0].message.content
    text = client.text_generation("Paris is", do_sample=False, max_new_tokens=12, return_full_text=False)
    assert text == own(writer, "Paris is")
    detailed = client.text_generation(
        "Paris is", do_sample=False, max_new_tokens=12, details=True, stream=True, return_full_text=False
    )
    found = list(detailed)
    assert "".join(each.token.text for each in found) == text
    assert found[-1].details.generated_tokens == len(found) == 12


def test_hugging_face_s_client_embeds(embedder, hugging_face):
    client = hugging_face(embedder)
    assert client.feature_extraction("a").tolist() == pytest.approx(embedder.post(json={"inputs": "a"}).json())
