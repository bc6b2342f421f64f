"""A small agent of LangGraph, as its users write one: it knows nothing of our endpoint."""

import subprocess
import sys

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition


@tool
def shell(command: str) -> str:
    """Runs a command line and returns its output."""
    return subprocess.run(command, shell=True, capture_output=True, text=True).stdout


llm = ChatOpenAI(model="default", streaming=sys.argv[1] == "stream", stream_usage=True)
model = llm.bind_tools([shell])

graph = StateGraph(MessagesState)
graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
graph.add_node("tools", ToolNode([shell]))
graph.add_edge(START, "model")
graph.add_conditional_edges("model", tools_condition)
graph.add_edge("tools", "model")
done = graph.compile().invoke({"messages": [("system", "Be brief."), ("user", "Write a greeting.")]})
last = done["messages"][-1]
assert last.usage_metadata["output_tokens"] > 0, last
print(last.content)
