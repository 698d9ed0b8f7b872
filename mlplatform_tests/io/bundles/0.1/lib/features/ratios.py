
class Ratio:
    def __init__(self, of, to):
        self.of, self.to = of, to

    def fit(self, frame, target):
        self.usual = float((frame[self.of] / frame[self.to]).median())

    def transform(self, frame):
        return frame.assign(ratio=frame[self.of] / frame[self.to] / self.usual)
