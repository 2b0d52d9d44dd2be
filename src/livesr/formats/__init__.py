"""What a run leaves and sends, for whoever reads it: the store, frames.jsonl, the stream.

Writers, readers and viewers share these modules; none of them knows a camera, a run or a network.
"""
