class Base:
    def initialize(self, context):
        self.begun = True


class Counting(Base):
    def handle(self, data, context):
        return [self.begun, data]
