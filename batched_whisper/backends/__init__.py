"""What transcribes recordings for `Whisper`: in this process, or elsewhere."""
